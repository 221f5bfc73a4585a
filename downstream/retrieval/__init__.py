"""Retrieval of an instant between cameras."""
