"""The global shuffle of all slides' cells into shards: an external sort in two passes."""
