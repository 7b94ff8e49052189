"""Operators, a folder for each, and what they share. The public way to them is `tmkt_kernels` and `tmkt_kernels.nn`."""
