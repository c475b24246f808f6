"""Analysis with no trained head: t-SNE, k-means, neighbours, linear probe, exploration."""
