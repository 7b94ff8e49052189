"""Recordings binned into frames."""

import numpy as np

from ..ops.arguments import checked_size
from ..ops.camera.area import area_table
from .arrays import as_events, compiled

_TOO_LONG = 2**62  # us


def to_frames(
    events: np.ndarray,
    T: int,
    sensor_size: tuple[int, int],
    size: tuple[int, int] | None = None,
    *,
    span: tuple[int, int] | None = None,
) -> np.ndarray:
    """Count events in T bins of equal time, by polarity; optionally resized to `size` in the same pass.

    Event i falls into bin floor((t_i - begin) * T / (end - begin)), in exact integer arithmetic, with
    (begin, end) = `span`. Without `span` it is (t_first, t_last + 1), so that each event, also the last,
    is in exactly one bin. (tonic's n_time_bins cuts the bin length to whole microseconds and drops the
    events after the last bin. If T divides t_last - t_first, the bins are the same except for the last
    event and those on an edge.)

    With `size`, an event is a pixel of area one on the sensor. Stretched to the target, it spreads
    over the cells that it overlaps, in proportion to the area. The sum of all cells is the number of
    events, whether the target is smaller or larger; the aspect ratio follows `size`. Along each axis the
    shares are whole parts of 2^-15 that sum to 1. A cell sums parts as integers and is rounded to float32
    once, so that the order of the events in a bin does not matter.

    Args:
        events: [N] structured array with integer fields x, y, t (us, never decreasing) and p (0 or 1);
            no events give frames of zeros. Fastest as `EVENT_DTYPE`.
        T: number of frames, 1 or more.
        sensor_size: (width, height) in pixels.
        size: (width, height) of the frames; None for that of the sensor.
        span: (begin, end) in us that the bins divide, end not included; None for that of the events.

    Returns:
        [T, 2, height, width]; channel 0 counts off events, 1 on events. int16 without `size`, float32 with it.

    Raises:
        ValueError: an event lies outside the sensor or the span, time steps back, p is neither 0 nor 1, or a
            count exceeds int16; the message names the first such event. Or the span is empty, or 2^62 us or more.
    """
    events = as_events(events)
    sensor_size = checked_size("sensor_size", sensor_size)
    if not (isinstance(T, int | np.integer) and 1 <= T < 2**31):
        raise ValueError(f"T: expected a number of frames from 1 to 2^31 - 1, got {T!r}")
    width, height = sensor_size if size is None else checked_size("size", size)
    begin, end = _recorded_span(events) if span is None else _checked_span(span)
    frames = np.zeros((T, 2, height, width), np.int16 if size is None else np.float32)
    raw = events.view(np.uint8)
    if size is None:
        compiled().count_frames(raw, begin, end - begin, frames)
    else:
        columns, rows = (area_table(*axis) for axis in zip(sensor_size, (width, height), strict=True))
        compiled().area_frames(raw, begin, end - begin, columns, rows, frames)
    return frames


def _recorded_span(events: np.ndarray) -> tuple[int, int]:
    if len(events) == 0:
        return 0, 1
    first, last = int(events["t"][0]), int(events["t"][-1])
    if last < first:
        raise ValueError("time runs backwards: the last event is before the first")
    if last - first + 1 >= _TOO_LONG:
        raise ValueError("t: the recording spans 2^62 us or more; is the unit right?")
    return first, last + 1


def _checked_span(span: tuple[int, int]) -> tuple[int, int]:
    try:
        begin, end = span
    except (TypeError, ValueError):
        begin = end = 0
    whole = all(isinstance(t, int | np.integer) and -(2**63) <= t < 2**63 for t in (begin, end))
    if not (whole and 0 < int(end) - int(begin) < _TOO_LONG):
        raise ValueError(f"span: expected (begin, end) in whole us, begin < end < begin + 2^62, got {span!r}")
    return int(begin), int(end)
