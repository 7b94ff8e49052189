"""What finished runs show: comparisons with intervals, diagnosis, profile, pictures."""
