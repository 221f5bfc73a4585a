"""Training on Ray Train or in one process."""
