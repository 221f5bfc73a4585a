"""AE2's four tasks on frame embeddings: phase classification, retrieval, progression and Kendall's tau."""
