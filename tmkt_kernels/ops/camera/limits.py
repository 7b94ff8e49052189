"""Bounds on the time and memory of a simulation."""

import operator

import numpy as np
from torch import Tensor

LONGEST_US = 2.0**30
"""Longest recording, 18 minutes."""
MOST_EVENTS = 2**26
"""Most events of a recording that is listed, and most expected background events of any."""
MOST_PIXELS = 2**28
"""Most pixels of all that the cameras of a call see."""
MOST_SENSOR_PIXELS = 2**26
MOST_SAMPLES = 2**31 - 1
MOST_LEGS = 400_000
"""Most legs of a path, as many as a drift of 100,000 loops has."""
MOST_WORK = 2**34
"""Most pixels times steps of a recording that is counted into frames: a quarter of a minute on one thread."""
MOST_SHRUNK = 16.0
"""Most by which an image may be smaller than a pixel of the sensor."""
MOST_STEPS = 10_000_000
"""Most steps of all recordings of a call."""


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return `value` if it is a whole number in the range; raise ValueError otherwise."""
    number = least - 1 if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")
    return number


def at_most(values: Tensor | np.ndarray | float, limit: float, problem: str, remedy: str) -> None:
    """Raise ValueError if a value, # in the message, exceeds the limit or is NaN."""
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)  # arrays, since torch takes longer for each operation
    bad = ~(numbers <= limit)
    if bad.any():
        raise ValueError(f"{problem.replace('#', f'{numbers[bad].max():.4g}')}; expected {limit:.4g} at most: {remedy}")
