"""Analysis of finished runs: comparisons with intervals, diagnosis, profile, pictures."""
