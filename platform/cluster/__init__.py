"""Connecting to Ray, what a cluster has, and jobs on it."""
