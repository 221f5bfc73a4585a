"""Embeddings of a run and their scores by downstream tasks."""
