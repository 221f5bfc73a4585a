"""Clip recognition: which classes a recording, or a labelled segment of one, shows."""
