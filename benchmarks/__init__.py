"""Benchmarks of our operators beside rivals and yardsticks: `make bench`, or `python -m benchmarks.run --help`."""
