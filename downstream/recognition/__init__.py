"""Recognition of what clips show: a method's encoder, fine-tuned or frozen, under a classifier per kind of label."""
