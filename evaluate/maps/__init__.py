"""The t-SNE of embeddings, drawn with the cells' images."""
