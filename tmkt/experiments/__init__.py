"""Experiments on the trainer: comparisons over a grid of runs, diagnosis and profile of one run."""
