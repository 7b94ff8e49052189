"""Recordings as arrays: the dtype, its checks, and the compiled module that reads them."""

import importlib
from typing import Any

import numpy as np

from ..extension import REBUILD, build_report

EVENT_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])


def compiled() -> Any:
    try:
        return importlib.import_module("tmkt_kernels._events")
    except ImportError as error:
        reason = build_report().get("events", "this source tree was never built")
        raise ImportError(
            "tmkt_kernels.events needs the compiled module tmkt_kernels._events: "
            f"{error if reason == 'built' else reason}; {REBUILD}"
        ) from error


def as_events(events: np.ndarray) -> np.ndarray:
    """Return a recording [N] with integer fields x, y, t (us) and p (0 or 1), in any order and width, as `EVENT_DTYPE`.

    Raises:
        ValueError: a field is missing or not an integer, or a value does not fit; the message names the first.
    """
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not {"x", "y", "t", "p"} <= set(names) or events.ndim != 1:
        got = f"dtype {events.dtype}, shape {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
        raise ValueError(f"events: expected a 1-d structured array with the fields x, y, t and p, got {got}")
    if events.dtype != EVENT_DTYPE:
        events = _converted(events)
    return np.ascontiguousarray(events)


def _converted(events: np.ndarray) -> np.ndarray:
    """Return a copy as EVENT_DTYPE. A value that does not fit is an error and is never wrapped."""
    out = np.empty(events.shape, EVENT_DTYPE)
    for name, dtype, low, high in (
        ("x", np.int16, -(2**15), 2**15 - 1),
        ("y", np.int16, -(2**15), 2**15 - 1),
        ("t", np.int64, -(2**63), 2**63 - 1),
        ("p", np.bool_, 0, 1),
    ):
        field = events[name]
        if field.dtype.kind not in "iub":
            raise ValueError(f"events: expected integers in the field {name}, got {field.dtype}; convert them first")
        if not np.can_cast(field.dtype, dtype) and field.size and (field.min() < low or field.max() > high):
            i = int(((field < low) | (field > high)).argmax())
            hint = "; turn polarities -1 and +1 into p > 0" if name == "p" and field[i] == -1 else ""
            raise ValueError(f"event {i}: expected {name} from {low} to {high}, got {field[i]}{hint}")
        out[name] = field
    return out
