"""Rivals and yardsticks beside our operators in one run: `make bench`, or `python -m benchmarks.run --help`."""
