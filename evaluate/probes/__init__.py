"""What is asked of embeddings of known labels or genes."""
