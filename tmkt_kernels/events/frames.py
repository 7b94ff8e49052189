"""Recordings binned into frames."""

import numpy as np

from .arrays import checked_size, compiled, raw_events


def to_frames(
    events: np.ndarray,
    T: int,
    sensor_size: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Count events in T bins of equal time, by polarity; optionally resized to `size` in the same pass.

    Event i falls into bin floor((t_i - t_first) * T / (t_last - t_first + 1)), in exact integer
    arithmetic, so that each event, also the last, is in exactly one bin. (tonic's n_time_bins cuts the bin
    length to whole microseconds and drops the events after the last bin. If T divides
    t_last - t_first, the bins are the same except for the last event and those on an edge.)

    With `size`, an event is a pixel of area one on the sensor. Stretched to the target, it spreads
    over the cells that it overlaps, in proportion to the area. The sum of all cells is the number of
    events, whether the target is smaller or larger; the aspect ratio follows `size`.

    Args:
        events: [N] structured array with integer fields x, y, t (us, never decreasing) and p (0 or 1);
            no events give frames of zeros. Fastest as `EVENT_DTYPE`.
        T: number of frames, 1 or more.
        sensor_size: (width, height) in pixels.
        size: (width, height) of the frames; None for that of the sensor.

    Returns:
        [T, 2, height, width]; channel 0 counts off events, 1 on events. int16 without `size`, float32 with it.

    Raises:
        ValueError: an event lies outside the sensor, time steps back, p is neither 0 nor 1, or a
            count exceeds int16; the message names the first such event.
    """
    raw = raw_events(events)
    sensor_size = checked_size("sensor_size", sensor_size)
    if not (isinstance(T, int | np.integer) and 1 <= T < 2**31):
        raise ValueError(f"T: expected a number of frames from 1 to 2^31 - 1, got {T!r}")
    width, height = sensor_size if size is None else checked_size("size", size)
    frames = np.zeros((T, 2, height, width), np.int16 if size is None else np.float32)
    fill = compiled().count_frames if size is None else compiled().area_frames
    fill(raw, sensor_size, frames)
    return frames
