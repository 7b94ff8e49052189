"""Frames of recordings against numpy references and tonic; errors name arrays that are not recordings."""

import numpy as np
import pytest
from event_arrays import random_recording, recording, recordings
from hypothesis import given, settings
from hypothesis import strategies as st

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")


def area_weights(source, target):
    """[target, source]: share of each source pixel in each target cell, computed directly from the intervals."""
    begin = np.maximum(np.arange(source) * target, np.arange(target)[:, None] * source)
    end = np.minimum((np.arange(source) + 1) * target, (np.arange(target)[:, None] + 1) * source)
    return np.maximum(end - begin, 0) / target


def reference_frames(events, T, sensor_size):
    """Count events by the formula of the docstring, in Python's unbounded integers."""
    width, height = sensor_size
    frames = np.zeros((T, 2, height, width), np.int16)
    if len(events):
        first, last = int(events["t"][0]), int(events["t"][-1])
        bins = [(int(t) - first) * T // (last - first + 1) for t in events["t"]]
        np.add.at(frames, (bins, events["p"].astype(int), events["y"], events["x"]), 1)
    return frames


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(events=recordings(width=7, height=5, max_time=200), T=st.integers(1, 12))
def test_every_event_is_counted_once_in_its_bin(events, T):
    frames = ev.to_frames(events, T, (7, 5))
    assert frames.dtype == np.int16
    assert frames.sum() == len(events)
    assert np.array_equal(frames, reference_frames(events, T, (7, 5)))


@pytest.mark.parametrize("start", [0, -(2**62), 2**62], ids=["zero", "far past", "far future"])
@pytest.mark.parametrize("T", [1, 3, 10, 1000])
def test_bins_are_exact_at_extreme_times(start, T):
    events = random_recording(2000, 7, 5, span=2**61)
    events["t"] += start
    assert np.array_equal(ev.to_frames(events, T, (7, 5)), reference_frames(events, T, (7, 5)))


def test_frames_of_real_recordings(shared_data):
    for path in sorted((shared_data / "N-MNIST-small" / "Train" / "7").glob("*.bin")):
        events = ev.read_bin(path)
        assert np.array_equal(ev.to_frames(events, 10, (34, 34)), reference_frames(events, 10, (34, 34))), path


def test_frames_equal_tonic_where_the_bin_edges_coincide():
    functional = pytest.importorskip("tonic.functional")
    events = random_recording(span=299_999)
    # D = 300,000 us here. tonic's bin length lacks the + 1, and it drops the last event; one more event aligns both.
    events["t"][0], events["t"][-1] = 0, 299_999
    closing = np.concatenate([events, recording([0], [0], [300_000], [0])])
    assert np.array_equal(
        ev.to_frames(events, 10, (240, 180)), functional.to_frame_numpy(closing, (240, 180, 2), n_time_bins=10)
    )


@pytest.mark.parametrize(
    "size", [(48, 48), (34, 26), (240, 180), (300, 500), (1, 1), (7, 400), (120, 90)], ids="{0[0]}x{0[1]}".format
)
def test_area_resize_equals_a_dense_one(size):
    events, sensor = random_recording(), (240, 180)
    frames = ev.to_frames(events, 3, sensor, size)
    assert frames.dtype == np.float32
    assert frames.shape == (3, 2, size[1], size[0])
    counts = reference_frames(events, 3, sensor).astype(np.float64)
    dense = area_weights(180, size[1]) @ counts @ area_weights(240, size[0]).T
    assert np.allclose(frames, dense, rtol=1e-5, atol=1e-6)
    assert frames.sum(dtype=np.float64) == pytest.approx(len(events), rel=1e-6)


def test_area_resize_bit_for_bit():
    """Weights are correctly rounded quotients, and cells add them in the order of the events."""
    events = random_recording()
    events["p"] = True
    wx, wy = (area_weights(n, 48).astype(np.float32) for n in (240, 180))
    expected = np.zeros((48, 48), np.float32)
    for event in events:
        expected += wy[:, event["y"], None] * wx[None, :, event["x"]]
    assert np.array_equal(ev.to_frames(events, 1, (240, 180), (48, 48))[0, 1], expected)


def test_empty_recording_gives_zero_frames():
    empty = np.empty(0, ev.EVENT_DTYPE)
    assert not ev.to_frames(empty, 4, (34, 34)).any()
    assert ev.to_frames(empty, 4, (34, 34), (8, 6)).shape == (4, 2, 6, 8)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16], ids=lambda dtype: dtype.__name__)
def test_other_integer_fields_and_strided_arrays(dtype):
    events = random_recording(span=60_000)
    other = np.empty(len(events), [("t", np.uint64), ("p", np.int8), ("x", dtype), ("y", dtype)])
    for name in other.dtype.names:
        other[name] = events[name]
    expected = ev.to_frames(events, 5, (240, 180), (48, 48))
    assert np.array_equal(ev.to_frames(other, 5, (240, 180), (48, 48)), expected)
    assert np.array_equal(ev.to_frames(np.repeat(events, 2)[::2], 5, (240, 180), (48, 48)), expected)


def with_value(name, value):
    events = random_recording(10, 34, 34).astype([("x", int), ("y", int), ("t", int), ("p", int)])
    events[name][3] = value
    return events


@pytest.mark.parametrize(
    "events, message",
    [
        (with_value("x", 34), r"event 3: x = 34, y = \d+ lies beyond the sensor of 34 x 34"),
        (with_value("y", -1), r"event 3: x = \d+, y = -1 lies beyond"),
        (with_value("x", 2**16), "event 3: expected x from"),
        (with_value("p", -1), "event 3: expected p from 0 to 1, got -1; turn polarities"),
        (with_value("t", -5), "event 3: time runs backwards, .* sort with"),
        (
            np.zeros(3, [("x", int), ("y", int), ("t", float), ("p", int)]),
            "expected integers in the field t, got float64",
        ),
        (np.zeros((3, 4)), "expected a 1-d structured array"),
        ([1, 2], "expected a 1-d structured array .* got list"),
    ],
)
@pytest.mark.parametrize("size", [None, (8, 8)], ids=["counts", "area"])
def test_bad_recordings_are_named(events, message, size):
    with pytest.raises(ValueError, match=message):
        ev.to_frames(events, 4, (34, 34), size)


@pytest.mark.parametrize(
    "kwargs", [{"T": 0}, {"T": 2.5}, {"sensor_size": 34}, {"sensor_size": (34, 0)}, {"size": (8,)}], ids=str
)
def test_bad_sizes_are_named(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}: expected"):
        ev.to_frames(random_recording(10, 34, 34), **{"T": 4, "sensor_size": (34, 34), **kwargs})


def test_int16_overflow_is_an_error_and_float_counts_on():
    events = recording([1], [2], [0], [1]).repeat(2**15)
    assert ev.to_frames(events[1:], 1, (3, 3)).max() == 2**15 - 1
    with pytest.raises(ValueError, match=r"event 32767: more than 32767 events .* x = 1, y = 2"):
        ev.to_frames(events, 1, (3, 3))
    assert ev.to_frames(events, 1, (3, 3), (3, 3)).max() == 2**15


@pytest.mark.parametrize(
    "events, message",
    [(np.zeros(3), "expected a 1-d structured array"), (with_value("p", 2), "event 3: expected p from 0 to 1, got 2")],
)
def test_as_events_names_what_is_wrong(events, message):
    with pytest.raises(ValueError, match=message):
        ev.as_events(events)
