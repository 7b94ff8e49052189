"""Events of one simulated recording, as numpy's structured arrays."""

import numpy as np
import torch

from ... import backends
from .. import library
from . import op
from .frames import reference_events
from .limits import MOST_EVENTS, at_most
from .scene import Scene

CALL = library.register_forward("camera_events", op.EVENTS_SCHEMA, op.fake_events)["native"]
"""The operator that lists events. It has no kernel on GPUs, because a recording is made once and then stored."""

_BAND = 2**27  # pixels times steps of one call; Ctrl-C is heard between calls, a few times per second


def record(scene: Scene, dtype: np.dtype, *, backend: str = "auto") -> np.ndarray:
    """Return the events of the one recording of a scene, [N] of `dtype`: packed x, y (int16), t (int64), p (bool).

    Raises:
        ValueError: there are more than 2^26 events.
    """
    if backends.choose("simulate", "cpu", torch.float32, backend) == "reference":
        rows = reference_events(scene).numpy()
        events = np.empty(len(rows), dtype)
        for column, name in enumerate(("x", "y", "t", "p")):
            events[name] = rows[:, column]
        return events
    rows_at_once = max(1, _BAND // (scene.times.shape[1] * scene.width))
    bands, n_events = [], 0
    for first in range(0, scene.height, rows_at_once):
        last = min(first + rows_at_once, scene.height)
        bands.append(CALL(*scene, first, last).numpy().reshape(-1).view(dtype))
        n_events += len(bands[-1])
        at_most(n_events, MOST_EVENTS, "the simulation makes # events or more", "raise threshold or refractory_us")
    if len(bands) == 1:
        return bands[0]
    events = np.concatenate(bands)
    return events[np.argsort(events["t"], kind="stable")]
