"""The whole pipeline on painted slides whose nuclei are known."""
