"""The writer of EVT3, against the layout of its words and other readers."""

import numpy as np
import pytest
import recorded
from event_arrays import random_recording, recording, recordings
from hypothesis import given, settings

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")


def written_evt3(tmp_path, events, sensor_size=(640, 480)):
    """Return the words of the file that write_evt3 makes of events, and how it is read again."""
    path = tmp_path / "a.raw"
    path.write_bytes(b"old")
    ev.write_evt3(path, events, sensor_size)
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]
    width, height = sensor_size
    header = f"% evt 3.0\n% format EVT3;height={height};width={width}\n% geometry {width}x{height}\n% end\n".encode()
    content = path.read_bytes()
    assert content.startswith(header)
    return list(memoryview(content[len(header) :]).cast("H")), ev.read_raw(path)


def test_write_evt3_writes_these_words(tmp_path):
    events = recording([5, 2047, 6, 6], [7, 7, 0, 0], [4099, 4099, 4099, 8192], [1, 0, 0, 1])
    words, got = written_evt3(tmp_path, events, (2048, 2048))
    assert words == [0x8000, 0x8001, 0x6003, 7, 0x2805, 0x27FF, 0, 0x2006, 0x8002, 0x6000, 0x2806]
    assert np.array_equal(got.events, events)
    assert got.sensor_size == (2048, 2048)


@settings(max_examples=200, deadline=None)
@given(events=recordings(width=1280, height=720, max_time=2**27, min_size=1))
def test_write_evt3_round_trip(tmp_path_factory, events):
    words, got = written_evt3(tmp_path_factory.mktemp("evt3"), events, (1280, 720))
    assert np.array_equal(got.events, events)
    assert recorded.read_evt3(words) == recorded.listed(events)  # by another reader
    high = [word & 0xFFF for word in words if word >> 12 == 8]
    assert high == [
        k % 4096 for k in range(int(events["t"][-1] >> 12) + 1)
    ]  # each time word, so that wraps are counted


@pytest.mark.parametrize("t", [0, 2**24 - 1, 2**24, 2**25 + 5, 2**31, 2**32 - 1])
def test_write_evt3_of_one_event_at_any_time(tmp_path, t):
    for times in ([t], [0, t]):
        events = recording([3] * len(times), [4] * len(times), times, [1] * len(times))
        assert np.array_equal(written_evt3(tmp_path, events)[1].events, events)


def test_write_evt3_takes_2_to_6_bytes_an_event(tmp_path):
    events = random_recording(20_000, 640, 480)
    words, got = written_evt3(tmp_path, events)
    assert np.array_equal(got.events, events)
    assert len(words) < 3 * len(events) + events["t"][-1] / 4096 + 1
    assert len(written_evt3(tmp_path, recording(range(640), [3] * 640, [9] * 640, [0] * 640))[0]) == 1 + 1 + 1 + 640


def test_the_real_evt3_file_is_written_again(tmp_path, shared_data):
    events = ev.read_raw(shared_data / "formats/evt3_sample.raw").events
    assert np.array_equal(written_evt3(tmp_path, events, (1280, 720))[1].events, events)


def test_expelliarmus_reads_what_write_evt3_writes(tmp_path):
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding="evt3")
    events = random_recording(20_000, 640, 480, span=10_000_000)
    written_evt3(tmp_path, events)
    theirs = wizard.read(tmp_path / "a.raw")
    # It adds a step of 4,096 us twice, in cameras' files too; times within the first are right.
    first = events["t"] < 4096
    assert first.any()
    assert all(np.array_equal(events[field], theirs[field]) for field in ("x", "y", "p"))
    assert np.array_equal(events["t"][first], theirs["t"][first])


@pytest.mark.parametrize(
    "change, size, message",
    [
        ({"x": 1280}, (1280, 720), "event 3: x = 1280, y = 0 lies beyond the sensor of 1280 x 720"),
        ({"y": -1}, (1280, 720), "event 3: x = 0, y = -1 lies beyond"),
        ({"t": -1}, (1280, 720), "event 3: time runs backwards, from 0 to -1 us; sort by t first"),
        ({"t": [-1, 0, 0, 0, 0]}, (1280, 720), r"event 0: expected a time from 0 to 2\^32 - 1 us, got -1"),
        ({"t": [0, 0, 0, 0, 2**32]}, (1280, 720), "event 4: expected a time from 0 .* got 4294967296"),
        ({}, (2049, 720), "sensor_size: expected 2048 x 2048 at most, got 2049 x 720; write_npz"),
        ({}, (0, 720), "sensor_size: expected"),
    ],
)
def test_write_evt3_refuses_what_the_format_cannot_hold(tmp_path, change, size, message):
    events = np.zeros(5, ev.EVENT_DTYPE)
    for name, value in change.items():
        events[name][3 if isinstance(value, int) else slice(None)] = value
    with pytest.raises(ValueError, match=message):
        ev.write_evt3(tmp_path / "a.raw", events, size)
    with pytest.raises(ValueError, match="at least one event"):
        ev.write_evt3(tmp_path / "a.raw", events[:0], (1280, 720))
    assert not list(tmp_path.iterdir())
