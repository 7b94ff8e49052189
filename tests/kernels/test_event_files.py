"""Decoders of recorded formats against files written by the layout of their words, and against other decoders."""

import random
import struct

import numpy as np
import pytest
import recorded

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")

EVT2, EVT3 = recorded.HEADERS["evt2"], recorded.HEADERS["evt3"]


def evt3(*words):
    return struct.pack(f"<{len(words)}H", *words)


def evt2(*words):
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize("name", recorded.ENCODERS)
@pytest.mark.parametrize("seed", range(5))
def test_what_the_layout_says_is_read(read_as, name, seed):
    events = recorded.random_events(random.Random(seed), name, start=1000 * seed)
    got = read_as(name, recorded.ENCODERS[name](events))
    assert got.events.dtype == ev.EVENT_DTYPE
    assert got.sensor_size == recorded.SENSORS.get(name, (640, 480))
    assert recorded.listed(got.events) == events


WRAPS = {"dat": 2**32, "evt2": 2**34, "evt21": 2**34, "evt3": 2**24, **dict.fromkeys(recorded.SENSORS, 2**31)}


@pytest.mark.parametrize("name", recorded.ENCODERS)
@pytest.mark.parametrize("back", [0, 3, 11, 1000, 9_999])
def test_a_wrap_counts_once_and_steps_back_are_sorted(read_as, name, back):
    """The clock wraps, and some events before, at and after the wrap come late."""
    end = WRAPS[name]
    times = [end - 30_000 + 250 * i for i in range(240)]
    late = [t - back if i % 7 == 3 else t for i, t in enumerate(times)]
    events = [(i % 100, i % 90, t, i % 2) for i, t in enumerate(late)]
    got = read_as(name, recorded.ENCODERS[name](events)).events
    assert recorded.listed(got) == sorted(events, key=lambda event: event[2])


@pytest.mark.parametrize("name", ["evt3", "dat"])
def test_many_wraps(read_as, name):
    events = [(1, 2, i * (WRAPS[name] // 5), 1) for i in range(40)]
    assert recorded.listed(read_as(name, recorded.ENCODERS[name](events)).events) == events


@pytest.mark.parametrize("name", recorded.ENCODERS)
def test_time_that_runs_backwards_is_named(read_as, name):
    events = [(1, 2, t, 1) for t in (50_000, 60_000, 39_000, 70_000)]
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.\w+: event 2: time runs backwards, from 60000 to 39000 us"):
        read_as(name, recorded.ENCODERS[name](events))


@pytest.mark.parametrize("name", recorded.ENCODERS)
def test_events_that_come_late_by_up_to_ten_milliseconds_keep_their_order_within_one_time(read_as, name):
    rng = random.Random(0)
    events = [(i % 120, i % 100, max(0, 30 * i - rng.randrange(4000) // 100 * 100), i % 2) for i in range(2000)]
    got = read_as(name, recorded.ENCODERS[name](events)).events
    assert recorded.listed(got) == sorted(events, key=lambda event: event[2])


def test_evt3_by_hand(read):
    """x = 1 at 4095 us, x = 2 at 4096 us: the lower bits of the time wrap once."""
    words = (0x8000, 0x6FFF, 0x0001, 0x2801, 0x8001, 0x6000, 0x2802)
    assert recorded.listed(read(".raw", EVT3 + evt3(*words)).events) == [(1, 1, 4095, 1), (2, 1, 4096, 1)]


def test_evt3_new_high_bits_put_the_low_ones_to_zero_and_repeated_ones_do_not(read):
    words = (0x8000, 0x6FF0, 0x0001, 0x2801, 0x8000, 0x2802, 0x8001, 0x2803, 0x6001, 0x2804)
    assert [t for _, _, t, _ in recorded.listed(read(".raw", EVT3 + evt3(*words)).events)] == [4080, 4080, 4096, 4097]


def test_evt3_vectors(read):
    words = (
        *(0x8000, 0x6001, 0x0005, 0x3864),  # base x = 100, on
        *(0x4801, 0x5082, 0x4004),  # 100, 111; 113, 119; 122
        *(0x3010, 0x5001),  # base x = 16, off
    )
    got = recorded.listed(read(".raw", EVT3 + evt3(*words)).events)
    assert got == [(x, 5, 1, 1) for x in (100, 111, 113, 119, 122)] + [(16, 5, 1, 0)]


def test_evt3_words_that_are_no_events_are_skipped(read):
    others = (0xA001, 0x7001, 0xF123, 0xE001, 0xC002, 0x9999, 0xB000, 0xD00D)
    words = (0x8000, 0x6005, 0x000A, *others, 0x2803, *others, 0x1007, 0x2804, 0x000A, 0x2805)
    assert recorded.listed(read(".raw", EVT3 + evt3(*words)).events) == [(3, 10, 5, 1), (5, 10, 5, 1)]


def test_evt3_vector_beyond_the_format_is_named(read):
    with pytest.raises(ev.DamagedRecordingError, match="a vector of pixels runs past x = 2047"):
        read(".raw", EVT3 + evt3(0x8000, 0x0001, 0x37FF, 0x4002))
    assert len(read(".raw", EVT3 + evt3(0x8000, 0x0001, 0x37FF, 0x4001, *[0x4000] * 500)).events) == 1


@pytest.mark.parametrize("seed", range(10))
def test_evt3_random_words_equal_a_slow_decoder(read, seed):
    rng = random.Random(seed)
    words, high = [rng.randrange(0x3000) for _ in range(20)], 4050
    for _ in range(3000):
        kind = rng.choice([0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 8, 8, 7, 9, 10, 14, 15])
        value = rng.randrange(0x800) // 2 if kind == 3 else rng.randrange(0x1000)
        if kind == 8:
            high += rng.choice([0, 0, 1, 2])
            value = (high - rng.choice([0, 0, 0, 1])) % 4096  # some times step back
        words.append(kind << 12 | value)
    got = recorded.listed(read(".raw", EVT3 + evt3(*words)).events)
    assert len(got) > 1000
    assert got[-1][2] > 2**24  # the clock has wrapped
    assert got == recorded.read_evt3(words)


@pytest.mark.parametrize("seed", range(10))
def test_evt2_random_words_equal_a_slow_decoder(read, seed):
    rng = random.Random(seed)
    words, high = [rng.randrange(2**29) for _ in range(20)], 2**28 - 200
    for _ in range(3000):
        kind = rng.choice([0, 0, 1, 1, 1, 8, 10, 14, 15, 3])
        if kind == 8:
            high = (high + rng.randrange(-2, 6)) % 2**28
        words.append(kind << 28 | (high if kind == 8 else rng.randrange(2**28)))
    got = recorded.listed(read(".raw", EVT2 + evt2(*words)).events)
    assert len(got) > 1000
    assert got == recorded.read_evt2(words)
    assert got[-1][2] > 2**34  # the clock has wrapped


def test_evt21_halves_in_either_order(read):
    events = recorded.random_events(random.Random(3), "evt21")
    header = b"% evt 2.1\n% format EVT21;height=480;width=640;endianness=legacy\n% end\n"
    assert recorded.listed(read(".raw", header + recorded.evt21(events, high_half_first=True)).events) == events
    assert len(recorded.evt21(events)) < 8 * len(events)  # words hold several events


@pytest.mark.parametrize("name", ["evt2", "evt21", "evt3"])
def test_events_before_the_time_is_known_are_left_out(read_as, name):
    """One event has an unknown time, and 1000 follow from 64 s on: frames must not stretch from 0 to there."""
    events = [(5, 6, 64_000_000 + 64 * i, 1) for i in range(1000)]
    early = {"evt2": evt2(0x10000000), "evt21": struct.pack("<Q", 0x1 << 60 | 7), "evt3": evt3(0x0001, 0x6003, 0x2801)}
    got = read_as(name, early[name] + recorded.ENCODERS[name](events)).events
    assert len(got) == 1000
    assert got["t"][-1] - got["t"][0] == 999 * 64


def test_dat_with_one_stamp_that_is_early(read_as):
    times = [100 * i for i in range(1000)]
    times[500] = times[499] - 1
    got = read_as("dat", recorded.dat((1, 1, t, 1) for t in times)).events
    assert got["t"].tolist() == sorted(times)
    assert ev.to_frames(got, 10, (640, 480)).sum((1, 2, 3)).tolist() == [
        100,
        100,
        100,
        100,
        101,
        99,
        100,
        100,
        100,
        100,
    ]


def test_dat_of_two_events_in_the_wrong_order(read_as):
    assert read_as("dat", recorded.dat([(1, 1, 200, 1), (2, 1, 100, 1)])).events["t"].tolist() == [100, 200]


@pytest.mark.parametrize(
    "header, message",
    [
        (b"% Version 1\n\x00\x08", "is of DAT version 1"),
        (b"% Version 2\n\x0e\x08", "records of type 14 and 8 bytes"),
        (b"% Version 2\n\x00\x10", "records of type 0 and 16 bytes"),
        (b"% Version 2\n\x00", "ends within its header"),
        (b"% Version 2", "ends within its header"),
        (b"\0" * 16, "has no header"),
    ],
)
def test_dat_headers_that_are_not_read_are_named(read, header, message):
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read(".dat", header)


def test_dat_of_the_first_recorders(read):
    """Type 0, without a version."""
    got = read(".dat", b"% Data file containing Event2d events.\n\x00\x08" + recorded.dat([(7, 8, 9, 1)]))
    assert (recorded.listed(got.events), got.sensor_size) == ([(7, 8, 9, 1)], None)


@pytest.mark.parametrize(
    "header, size",
    [
        (b"% evt 3.0\n", None),
        (b"% evt 3.0\r\n% geometry 1280x720\r\n", (1280, 720)),
        (b"% Date 2020\n% format EVT3;height=720;width=1280\n% end\n", (1280, 720)),
        (b"% evt 3.0\n% format EVT3\n% integrator \xc2\xb5-Corp\n% end\n", None),
    ],
)
@pytest.mark.parametrize("first", [0x8000, 0x2025], ids=["time first", "bytes of a header line first"])
def test_raw_headers(read, header, size, first):
    """The word 0x2025 is the bytes '% ', with which header lines begin, but no text follows it."""
    got = read(".raw", header + evt3(first, 0x8000, 0x6001, 0x0002, 0x2003))
    assert (recorded.listed(got.events), got.sensor_size) == ([(3, 2, 1, 0)], size)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has 0 bytes"),
        (b"% evt 3.0", "ends within its header"),
        (b"% evt 2.0\n% e", "ends within its header"),
        (b"% evt 2.0\n% end", "ends within its header"),
        (b"% evt 3.0\n%", "ends 1 bytes into a record of 2"),
        (b"% evt 2.0\n% end\n\1\2\3", "ends 3 bytes into a record of 4"),
        (b"% evt 2.1\n% end\n\1\2\3\4", "ends 4 bytes into a record of 8"),
        (b"% Date 2020\n% end\n\1\2", "states no format in its header"),
        (b"% evt 4.0\n% end\n", "states EVT4 in its header"),
        (b"% format HISTO3D;width=3\n% end\n", "states HISTO3D in its header"),
        (b"% evt 2.0\n% format EVT3\n% end\n", "states EVT2 and EVT3 in its header"),
        (b"\x00\x80\x01\x20", "has no header"),
    ],
)
def test_raw_files_that_cannot_be_read_are_named(read, content, message):
    with pytest.raises(ev.DamagedRecordingError, match=message) as error:
        read(".raw", content)
    assert str(error.value).count("a.raw") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", recorded.ENCODERS)
def test_every_cut_is_read_in_part_or_named(read_as, name):
    events = recorded.random_events(random.Random(1), name, 60)
    body = recorded.ENCODERS[name](events)
    outcomes = set()
    for left in range(len(body)):
        try:
            got = recorded.listed(read_as(name, body[:left]).events)
            assert got == events[: len(got)] or name == "evt21"  # a word may hold several events
            outcomes.add("read")
        except ev.DamagedRecordingError:
            outcomes.add("named")
    assert outcomes == {"read", "named"}


@pytest.mark.parametrize(
    "name, count, first, last",
    [("evt2_sample.raw", 539_481, 1_317_888, 1_367_888), ("evt3_sample.raw", 219_596, 11_718_656, 11_727_457)],
)
def test_real_raw_files(shared_data, name, count, first, last):
    content = (shared_data / "formats" / name).read_bytes()
    start = content.index(b"% system_ID 48\n") + 15 if "evt3" in name else content.index(b"% evt 2.0\n") + 10
    events = ev.read_raw(shared_data / "formats" / name).events
    assert (len(events), events["t"][0], events["t"][-1]) == (count, first, last)
    if name == "evt3_sample.raw":
        slow = recorded.read_evt3(memoryview(content[start:]).cast("H"))
    else:
        slow = recorded.read_evt2(memoryview(content[start:]).cast("I"))
    table = np.array(slow)
    for k, field in enumerate(("x", "y", "t", "p")):
        assert np.array_equal(events[field], table[:, k])


def test_frames_of_the_real_evt3_file(shared_data):
    events = ev.read_raw(shared_data / "formats/evt3_sample.raw").events
    frames = ev.to_frames(events, 10, (1280, 720)).sum((1, 2, 3))
    assert frames.tolist() == [22114, 22973, 22487, 22291, 22130, 21988, 21596, 21509, 21592, 20916]


@pytest.mark.parametrize("name, encoding", [("sample_ncars.dat", "dat"), ("evt2_sample.raw", "evt2")])
def test_expelliarmus_reads_the_same(shared_data, name, encoding):
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding=encoding)
    theirs = wizard.read(shared_data / "formats" / name)
    ours = getattr(ev, f"read_{name[-3:]}")(shared_data / "formats" / name).events
    assert all(np.array_equal(ours[field], theirs[field]) for field in ("x", "y", "t", "p"))


def test_write_npz_round_trip(tmp_path):
    events = np.zeros(1000, ev.EVENT_DTYPE)
    events["x"], events["y"] = np.arange(1000), np.arange(1000) % 720
    events["t"], events["p"] = np.arange(1000) * 7, np.arange(1000) % 2
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    ev.write_npz(path, events, (1280, 720))
    with np.load(path) as loaded:
        assert np.array_equal(loaded["events"], events)
        assert loaded["sensor_size"].tolist() == [1280, 720]
    assert path.stat().st_size < events.nbytes / 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    "change, size, message",
    [
        ({"x": 1280}, (1280, 720), "event 3: x = 1280, y = 0 lies beyond the sensor of 1280 x 720"),
        ({"y": -1}, (1280, 720), "event 3: x = 0, y = -1 lies beyond"),
        ({"t": -1}, (1280, 720), "event 3: time runs backwards, from 0 to -1 us"),
        ({}, (0, 720), "sensor_size: expected"),
    ],
)
def test_write_npz_refuses_what_is_no_recording(tmp_path, change, size, message):
    events = np.zeros(5, ev.EVENT_DTYPE)
    for name, value in change.items():
        events[name][3] = value
    with pytest.raises(ValueError, match=message):
        ev.write_npz(tmp_path / "a.npz", events, size)
    with pytest.raises(ValueError, match="at least one event"):
        ev.write_npz(tmp_path / "a.npz", events[:0], (1280, 720))
    with pytest.raises(ValueError, match=r"ends with \.npz"):
        ev.write_npz(tmp_path / "a.npy", events, (1280, 720))
    assert not list(tmp_path.iterdir())
