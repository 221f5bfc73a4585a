"""Frames of video files: decoders, exact frame numbers, prepared copies."""
