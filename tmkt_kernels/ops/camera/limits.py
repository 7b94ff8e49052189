"""Bounds on the time and memory of a simulation."""

import torch
from torch import Tensor

LONGEST_US = 2.0**30
"""Longest recording, 18 minutes."""
MOST_EVENTS = 2**26
"""Most events of a recording that is listed, and most expected background events of any."""
MOST_PIXELS = 2**30
"""Most pixels of all that the cameras of a call see."""
MOST_SENSOR_PIXELS = 2**26
MOST_STEPS = 10_000_000
"""Most steps of all recordings of a call."""


def at_most(values: Tensor | float, limit: float, problem: str, remedy: str) -> None:
    """Raise ValueError if a value, # in the message, exceeds the limit or is NaN."""
    numbers = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
    bad = ~(numbers <= limit)
    if bad.any():
        raise ValueError(f"{problem.replace('#', f'{numbers[bad].max():.4g}')}; expected {limit:.4g} at most: {remedy}")
