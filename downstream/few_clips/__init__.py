"""Fine-tuning on a few labelled clips."""
