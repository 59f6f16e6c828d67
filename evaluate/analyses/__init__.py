"""The paper's analyses of embeddings, and their figures."""
