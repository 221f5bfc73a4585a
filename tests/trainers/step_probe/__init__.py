"""The smallest downstream trainer: a linear classifier of each step."""
