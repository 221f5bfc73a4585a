"""Hyperparameter search by downstream metrics: Ray Tune schedules, ordinary runs train, a journal remembers."""
