"""Operators, one folder each, and shared code. Users reach them through `tmkt_kernels` and `tmkt_kernels.nn`."""
