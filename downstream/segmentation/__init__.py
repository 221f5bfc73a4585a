"""Temporal action segmentation: a label for every frame of a recording."""
