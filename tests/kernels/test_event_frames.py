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


def parts_of(source, target):
    """[target, source]: shares of each source pixel in parts of 2^15. Running sums are rounded, so that they add up."""
    before = np.cumsum(area_weights(source, target) * target, axis=0).round().astype(int)  # whole numbers up to target
    return np.diff((before * 2**16 + target) // (2 * target), axis=0, prepend=0)


def fixed_point_frames(events, T, sensor_size, size, span=None):
    """Resize the counts of `reference_frames` in integers, with one rounding at the end."""
    counts = reference_frames(events, T, sensor_size, span).astype(np.int64)
    columns, rows = (parts_of(*axis) for axis in zip(sensor_size, size, strict=True))
    return (rows @ counts @ columns.T).astype(np.float32) * np.float32(2**-30)


def reference_frames(events, T, sensor_size, span=None):
    """Count events by the formula of the docstring, in Python's unbounded integers."""
    width, height = sensor_size
    frames = np.zeros((T, 2, height, width), np.int16)
    if len(events):
        begin, end = span or (int(events["t"][0]), int(events["t"][-1]) + 1)
        bins = [(int(t) - begin) * T // (end - begin) for t in events["t"]]
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
    touching = (area_weights(180, size[1]) > 0) @ counts @ (area_weights(240, size[0]) > 0).T
    # Along each axis, a share is rounded to 2^-15.
    assert (np.abs(frames - dense) <= 2.0**-14 * touching + 1e-6 * dense).all()
    assert frames.sum(dtype=np.float64) == pytest.approx(len(events), rel=1e-6)


@pytest.mark.parametrize(
    "sensor, size", [((240, 180), (48, 48)), ((34, 34), (24, 24)), ((7, 5), (12, 3)), ((3, 2), (1, 9))]
)
def test_area_resize_bit_for_bit(sensor, size):
    """Cells sum whole parts of 2^-30 and are rounded to float32 once."""
    events = random_recording(5000, *sensor)
    frames = ev.to_frames(events, 3, sensor, size)
    assert np.array_equal(frames, fixed_point_frames(events, 3, sensor, size))


def test_area_resize_is_rounded_once_beyond_the_mantissa_of_a_double():
    n = 2**22 + 1  # 2^52 parts and more
    events = recording([1], [0], [0], [1]).repeat(n)
    parts = n * parts_of(3, 2)[:, 1] * 2**15
    expected = parts.astype(np.float32) * np.float32(2**-30)
    assert np.array_equal(ev.to_frames(events, 1, (3, 1), (2, 1))[0, 1, 0], expected)


def test_the_order_of_events_at_one_time_does_not_matter():
    events = random_recording(span=50)
    shuffled = np.random.default_rng(1).permutation(events)
    shuffled = shuffled[np.argsort(shuffled["t"], kind="stable")]
    assert not np.array_equal(shuffled, events)
    for size in (48, 48), (7, 400):
        expected = ev.to_frames(events, 3, (240, 180), size)
        assert np.array_equal(ev.to_frames(shuffled, 3, (240, 180), size), expected)


@pytest.mark.parametrize("span", [(7, 300_007), (0, 2**62 - 1), (-(2**61), 2**61 - 1), (-13, 400_000), (6, 300_009)])
@pytest.mark.parametrize("T", [1, 3, 10, 1000])
def test_bins_divide_a_span(span, T):
    events = random_recording(2000, 7, 5)
    assert np.array_equal(ev.to_frames(events, T, (7, 5), span=span), reference_frames(events, T, (7, 5), span))
    frames = ev.to_frames(events, T, (7, 5), (4, 3), span=span)
    assert np.array_equal(frames, fixed_point_frames(events, T, (7, 5), (4, 3), span))
    assert frames.sum(dtype=np.float64) == pytest.approx(len(events), rel=1e-6)


def test_the_edges_of_a_span():
    events = recording([0] * 4, [0] * 4, [10, 14, 15, 19], [0] * 4)
    assert ev.to_frames(events, 2, (1, 1), span=(10, 20))[:, 0].ravel().tolist() == [2, 2]
    assert ev.to_frames(events[:2], 2, (1, 1), span=(np.int64(10), 20))[:, 0].ravel().tolist() == [2, 0]
    assert ev.to_frames(events[2:], 2, (1, 1), (1, 1), span=(10, 20))[:, 0].ravel().tolist() == [0, 2]
    assert ev.to_frames(recording([0], [0], [2**63 - 2], [0]), 1, (1, 1), span=(2**62, 2**63 - 1)).sum() == 1


@pytest.mark.parametrize("size", [None, (2, 2)], ids=["counts", "area"])
@pytest.mark.parametrize(
    "times, message",
    [
        ([9, 12, 13], "event 0: t = 9 us lies outside the span of 10 us that begins at 10 us"),
        ([-(2**63), 12, 13], "event 0: t = -9223372036854775808 us lies outside"),
        ([10, 20, 21], "event 1: t = 20 us lies outside"),
        ([10, 19, 2**63 - 1], "event 2: t = 9223372036854775807 us lies outside"),
        ([10, 25, 12], "event 2: time runs backwards, from 25 to 12 us; sort with"),
        ([10, 9, 12], "event 1: time runs backwards, from 10 to 9 us; sort with"),
    ],
)
def test_events_outside_the_span_are_named(times, message, size):
    events = recording([0] * 3, [0] * 3, times, [0] * 3)
    with pytest.raises(ValueError, match=message):
        ev.to_frames(events, 2, (3, 3), size, span=(10, 20))


def test_a_step_back_after_an_event_later_than_the_last():
    with pytest.raises(ValueError, match="event 2: time runs backwards, from 9 to 5 us"):
        ev.to_frames(recording([0] * 3, [0] * 3, [0, 9, 5], [0] * 3), 2, (3, 3))


@pytest.mark.parametrize(
    "span", [(5, 5), (5, 4), (0, 2**62), (0.0, 5), (0, 2.5), (2**63, 2**63 + 1), 7, (1, 2, 3), "ab"], ids=str
)
def test_bad_spans_are_named(span):
    with pytest.raises(ValueError, match=r"span: expected \(begin, end\) in whole us"):
        ev.to_frames(np.empty(0, ev.EVENT_DTYPE), 4, (34, 34), span=span)


def test_empty_recording_gives_zero_frames():
    empty = np.empty(0, ev.EVENT_DTYPE)
    assert not ev.to_frames(empty, 4, (34, 34)).any()
    assert ev.to_frames(empty, 4, (34, 34), (8, 6)).shape == (4, 2, 6, 8)
    assert not ev.to_frames(empty, 4, (34, 34), (8, 6), span=(5, 9)).any()


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
