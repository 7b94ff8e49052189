"""tmkt_kernels.events against tonic, numpy references and the real recordings of shared/data."""

import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TMKT_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "N-MNIST-small").is_dir(), reason=f"no real recordings in {DATA}; set TMKT_DATA to the data folder"
)


def recording(x, y, t, p):
    out = np.empty(len(t), ev.EVENT_DTYPE)
    out["x"], out["y"], out["t"], out["p"] = x, y, t, p
    return out


def random_recording(n=5000, width=240, height=180, span=300_000, seed=0):
    rng = np.random.default_rng(seed)
    t = 7 + np.sort(rng.integers(0, span, n))
    return recording(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n))


@st.composite
def recordings(draw, width=256, height=240, max_time=2**31, min_size=0):
    n = draw(st.integers(min_size, 40))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    return recording(
        column(st.integers(0, width - 1)),
        column(st.integers(0, height - 1)),
        sorted(column(st.integers(0, max_time))),
        column(st.booleans()),
    )


def area_weights(source, target):
    """[target, source]: share of each source pixel in each target cell, straight from the intervals."""
    begin = np.maximum(np.arange(source) * target, np.arange(target)[:, None] * source)
    end = np.minimum((np.arange(source) + 1) * target, (np.arange(target)[:, None] + 1) * source)
    return np.maximum(end - begin, 0) / target


def reference_frames(events, T, sensor_size):
    """Counts by the formula of the docstring, in Python's unbounded integers."""
    width, height = sensor_size
    frames = np.zeros((T, 2, height, width), np.int16)
    if len(events):
        first, last = int(events["t"][0]), int(events["t"][-1])
        bins = [(int(t) - first) * T // (last - first + 1) for t in events["t"]]
        np.add.at(frames, (bins, events["p"].astype(int), events["y"], events["x"]), 1)
    return frames


# --- reading and writing ---


@needs_data
def test_read_bin_equals_tonic_on_every_real_recording():
    tonic_io = pytest.importorskip("tonic.io")
    paths = [*sorted((DATA / "N-MNIST-small").rglob("*.bin")), DATA / "formats" / "sample_nmnist.bin"]
    assert len(paths) > 100
    for path in paths:
        events = ev.read_bin(path)
        assert events.dtype == ev.EVENT_DTYPE
        assert np.array_equal(events, tonic_io.read_mnist_file(str(path), dtype=np.dtype(tonic_io.events_struct))), path


@needs_data
def test_write_bin_gives_back_a_real_file_byte_for_byte(tmp_path):
    path = DATA / "formats" / "sample_nmnist.bin"
    ev.write_bin(tmp_path / "copy.bin", ev.read_bin(path))
    assert (tmp_path / "copy.bin").read_bytes() == path.read_bytes()


def test_overflow_markers_shift_all_later_times(tmp_path):
    marker = bytes([9, 240, 0x83, 1, 2])
    path = tmp_path / "markers.bin"
    path.write_bytes(
        bytes([1, 2, 0x80, 0, 10]) + marker + bytes([3, 4, 0, 0, 20]) + marker * 2 + bytes([255, 239, 0x7F, 255, 255])
    )
    expected = recording([1, 3, 255], [2, 4, 239], [10, 8192 + 20, 3 * 8192 + 2**23 - 1], [1, 0, 0])
    assert np.array_equal(ev.read_bin(path), expected)
    tonic_io = pytest.importorskip("tonic.io")
    assert np.array_equal(tonic_io.read_mnist_file(str(path), dtype=ev.EVENT_DTYPE), expected)


@settings(max_examples=200, deadline=None)
@given(events=recordings(min_size=1))
def test_write_bin_round_trip(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    ev.write_bin(path, events)
    assert np.array_equal(ev.read_bin(path), events)
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_write_bin_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")

    def disk_full(self, data):
        with self.open("wb") as file:
            file.write(data[:3])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="no space left"):
        ev.write_bin(path, random_recording(10, 34, 34))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes"),
        (bytes([1, 2, 0x80, 0, 10, 1, 2]), "got 7 bytes"),
        (bytes([1, 2, 0, 0, 10, 1, 2, 0, 0, 10, 1, 2, 0, 0, 9]), "event 2: time runs backwards, from 10 to 9 us"),
    ],
    ids=["empty", "truncated", "backwards"],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "00042.bin"
    path.write_bytes(content)
    with pytest.raises(ev.DamagedRecordingError, match=message) as error:
        ev.read_bin(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.bin"):
        ev.read_bin(tmp_path / "none.bin")


@pytest.mark.parametrize(
    "column",
    [{"x": 256}, {"x": -1}, {"y": 256}, {"y": 240}, {"t": -1}, {"t": 2**32}, {"t": 4}],
    ids=lambda column: " ".join(f"{k}={v}" for k, v in column.items()),
)
def test_write_bin_refuses_what_the_format_cannot_hold(tmp_path, column):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")
    events = recording([1, 2], [3, 4], [5, 6], [0, 1])
    for name, value in column.items():
        events[name][1] = value
    with pytest.raises(ValueError, match="event 1: expected"):
        ev.write_bin(path, events)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_write_bin_names_the_format_for_larger_sensors(tmp_path):
    with pytest.raises(ValueError, match="got x = 1279, y = 4; write_npz takes sensors of any size"):
        ev.write_bin(tmp_path / "a.bin", recording([1, 1279], [3, 4], [5, 6], [0, 1]))


def test_write_bin_refuses_an_empty_recording(tmp_path):
    with pytest.raises(ValueError, match="at least one event"):
        ev.write_bin(tmp_path / "a.bin", np.empty(0, ev.EVENT_DTYPE))


# --- frames ---


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


@needs_data
def test_frames_of_real_recordings():
    for path in sorted((DATA / "N-MNIST-small" / "Train" / "7").glob("*.bin")):
        events = ev.read_bin(path)
        assert np.array_equal(ev.to_frames(events, 10, (34, 34)), reference_frames(events, 10, (34, 34))), path


def test_frames_equal_tonic_where_the_bin_edges_coincide():
    functional = pytest.importorskip("tonic.functional")
    events = random_recording(span=299_999)
    # D = 300,000 us here. tonic sets its bin length without the + 1 and drops the last event: one more makes them meet.
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
    """Weights are correctly rounded quotients and cells add up in the order of the events."""
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


# --- simulator ---


def bar():
    image = np.full((28, 28), 255, np.uint8)
    image[6:22, 12:16] = 0
    return image


def test_simulation_is_deterministic_and_seeded():
    first = ev.simulate_saccades(bar(), seed=3)
    assert first.dtype == ev.EVENT_DTYPE
    assert np.array_equal(first, ev.simulate_saccades(bar(), seed=3))
    thresholds = [ev.simulate_saccades(bar(), seed=seed, noise_rate=0) for seed in (3, 4)]
    assert not np.array_equal(*thresholds)
    noise = [ev.simulate_saccades(bar() * 0, seed=seed) for seed in (3, 4)]
    assert not np.array_equal(*noise)
    assert np.array_equal(first, ev.simulate_saccades(bar() / 255, seed=3))


def test_simulation_has_three_bursts_of_both_polarities_in_order():
    events = ev.simulate_saccades(bar(), seed=0, noise_rate=0)
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"][0] >= 0
    assert events["t"][-1] < 3 * 105_000
    assert events["x"].min() >= 0
    assert max(events["x"].max(), events["y"].max()) < 34
    assert 0.4 < events["p"].mean() < 0.6
    rate = np.histogram(events["t"], np.arange(0, 316_000, 5_000))[0].reshape(3, 21)
    assert (rate[:, 7:14].sum(axis=1) > 10 * rate[:, [0, 20]].sum(axis=1)).all()


def test_polarity_follows_the_light():
    """A dark bar moving right darkens what lies before it and frees what lay behind it."""
    events = ev.simulate_saccades(bar(), seed=0, noise_rate=0, path=((-3, 0), (3, 0)))
    ahead, behind = events[events["x"] >= 19], events[events["x"] < 14]  # the bar goes from 12..15 to 18..21
    assert len(ahead) > 50
    assert not ahead["p"].any()
    assert len(behind) > 50
    assert behind["p"].all()


def test_threshold_crossings_count_the_log_contrast():
    """Without mismatch, latency and refractory period the events of a full step are floor(contrast / threshold)."""
    image = np.zeros((28, 200))
    image[:, :100] = 1
    events = ev.simulate_saccades(
        image, sensor_size=(1, 1), scale=1.0, path=((-4, 0), (4, 0)), dark=0.1, threshold=0.3, mismatch=0, latency_us=0,
        refractory_us=0, noise_rate=0, seed=0,
    )  # fmt: skip
    assert len(events) == int(np.log(1.1 / 0.1) / 0.3)
    assert events["p"].all()


def test_noise_alone():
    events = ev.simulate_saccades(np.full((28, 28), 128, np.uint8), seed=1, noise_rate=50.0)
    expected = 50 * 34 * 34 * 3 * 0.105
    assert abs(len(events) - expected) < 5 * expected**0.5
    assert len(ev.simulate_saccades(np.full((28, 28), 128, np.uint8), seed=1, noise_rate=0)) == 0


def test_latency_delays_events():
    fast, slow = (ev.simulate_saccades(bar(), seed=0, latency_us=us)["t"] for us in (1_000, 8_000))
    assert 4_000 < np.median(slow[slow < 105_000]) - np.median(fast[fast < 105_000]) < 10_000


def test_refractory_period_keeps_events_of_a_pixel_apart():
    events = ev.simulate_saccades(bar(), seed=0, noise_rate=0, refractory_us=4_000)
    pixel = events["y"].astype(int) * 34 + events["x"]
    order = np.lexsort((events["t"], pixel))
    same = np.diff(pixel[order]) == 0
    assert np.diff(events["t"][order])[same].min() >= 3_999
    assert len(events) < len(ev.simulate_saccades(bar(), seed=0, noise_rate=0, refractory_us=0))


def test_bits_of_the_simulation_are_pinned():
    """The same seed gives the same recording on every platform; a change of the model changes this on purpose."""
    assert zlib.crc32(ev.simulate_saccades(bar(), seed=7).tobytes()) == 381169058


@pytest.mark.parametrize("shape, sensor", [((8, 8), (34, 34)), ((96, 64), (34, 34)), ((32, 32), (64, 48))], ids=str)
def test_simulation_of_other_sizes(shape, sensor):
    image = np.zeros(shape)
    image[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : -(shape[1] // 4)] = 1
    events = ev.simulate_saccades(image, sensor_size=sensor, seed=0)
    assert len(events) > 500
    assert (events["x"].max(), events["y"].max()) < sensor


def test_drift_goes_around_the_loop():
    """Each of the loop's four legs shows the same edges again, with the polarities of the leg opposite swapped."""
    quiet = {"sensor_size": (34, 34), "amplitude": 1, "loops": 2, "sensor": ev.SensorModel(noise_rate=0), "seed": 0}
    events = ev.simulate_drift(bar(), **quiet)
    assert np.array_equal(events, ev.simulate_drift(bar(), **quiet))
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"][-1] < 400_000
    frames = [
        ev.to_frames(events[(events["t"] >= a) & (events["t"] < a + 50_000)], 1, (34, 34)).sum(0).astype(int)
        for a in range(0, 400_000, 50_000)
    ]
    signed = [(frame[1] - frame[0]).ravel() for frame in frames[1:]]  # the first leg starts from rest
    assert np.corrcoef(signed[0], signed[4])[0, 1] > 0.9
    assert np.corrcoef(signed[1], signed[3])[0, 1] < -0.5
    assert (events["p"].mean() - 0.5) ** 2 < 0.01


def test_video_fires_by_the_log_contrast_of_its_frames():
    frames = np.zeros((3, 2, 3))
    frames[1:, 0, 1] = 1
    frames[2, 1, 2] = 0.2
    quiet = ev.SensorModel(dark=0.1, threshold=0.3, mismatch=0, latency_us=0, refractory_us=0, noise_rate=0)
    events = ev.simulate_video(frames, [1000, 2000, 5000], sensor=quiet, seed=0)
    first, second = events[events["y"] == 0], events[events["y"] == 1]
    assert len(first) == int(np.log(1.1 / 0.1) / 0.3)
    assert (first["x"] == 1).all()
    assert ((first["t"] > 1000) & (first["t"] < 2000)).all()
    assert len(second) == int(np.log(0.3 / 0.1) / 0.3)
    assert ((second["t"] > 2000) & (second["t"] < 5000)).all()
    assert events["p"].all()
    darker = ev.simulate_video(frames[::-1].copy(), [0, 1000, 2000], sensor=quiet, seed=0)
    assert not darker["p"].any()


def test_video_noise_fills_its_time():
    events = ev.simulate_video(
        np.full((2, 20, 30), 99, np.uint8), [5_000, 1_005_000], sensor=ev.SensorModel(noise_rate=2.0), seed=0
    )
    assert abs(len(events) - 1200) < 5 * 1200**0.5
    assert events["t"].min() >= 5_000
    assert events["t"].max() < 1_005_000


@needs_data
def test_simulated_digits_resemble_the_real_recordings():
    images = np.fromfile(DATA / "MNIST/raw/train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    paths = sorted((DATA / "N-MNIST-small").rglob("*.bin"))[::16]
    real = [ev.read_bin(path) for path in paths]
    simulated = [ev.simulate_saccades(255 - images[int(p.stem) - 1], seed=int(p.stem)) for p in paths]
    count = [np.array([len(events) for events in side]) for side in (real, simulated)]
    assert count[1].mean() == pytest.approx(count[0].mean(), rel=0.05)
    assert np.corrcoef(*count)[0, 1] > 0.95
    similarity = [
        np.corrcoef(*(ev.to_frames(events, 10, (34, 34)).ravel() for events in pair))[0, 1]
        for pair in zip(real, simulated, strict=True)
    ]
    assert np.mean(similarity) > 0.75


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"image": np.zeros((3, 28, 28), np.uint8)}, r"image: expected .* \[H, W\], got shape \[3, 28, 28\]"),
        ({"image": np.full((28, 28), 2.0)}, "image: expected uint8, or floats from 0 to 1"),
        ({"image": np.full((28, 28), np.nan)}, "image: expected uint8, or floats from 0 to 1"),
        ({"path": [(0, 0)]}, "path: expected"),
        ({"threshold": 0}, "threshold: expected"),
        ({"dark": 0.0}, "dark: expected"),
        ({"noise_rate": -1}, "noise_rate: expected"),
        ({"saccade_us": 0}, "saccade_us: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_bad_simulator_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_saccades(**{"image": bar(), "seed": 0, **kwargs})


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"loops": 0}, "loops: expected a whole number"),
        ({"amplitude": 0}, "amplitude: expected"),
        ({"loop_us": float("inf")}, "loop_us: expected"),
        ({"image": np.zeros((2, 3, 3), np.uint8)}, "image: expected one channel"),
    ],
)
def test_bad_drift_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_drift(**{"image": bar(), "seed": 0, **kwargs})


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"times_us": [0, 1]}, "times_us: expected 3 growing times"),
        ({"times_us": [0, 1, 1]}, "times_us: expected 3 growing times"),
        ({"frames": np.zeros((4, 4))}, r"frames: expected shape \[N, H, W\]"),
        ({"frames": np.full((3, 4, 4), 7.0)}, "frames: expected uint8, or floats"),
        ({"seed": 2**64}, "seed: expected"),
    ],
)
def test_bad_video_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_video(**{"frames": np.zeros((3, 4, 4)), "times_us": [0, 1, 2], "seed": 0, **kwargs})


@pytest.mark.parametrize(
    "events, message",
    [(np.zeros(3), "expected a 1-d structured array"), (with_value("p", 2), "event 3: expected p from 0 to 1, got 2")],
)
def test_as_events_names_what_is_wrong(events, message):
    with pytest.raises(ValueError, match=message):
        ev.as_events(events)


# --- without the compiled module ---


def test_import_without_the_compiled_module_and_a_clear_error_on_use():
    script = (
        "import sys; sys.modules['tmkt_kernels._events'] = None\n"
        "from tmkt_kernels import events\n"
        "events.read_bin('a.bin')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: tmkt_kernels.events needs the compiled module" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"path": ((0, 0), (1e12, 0))}, r"the motion takes 1\.944e\+13 steps of 1/8 pixel.*expected 1e\+07 at most"),
        ({"path": ((0, 0), (1e300, 0))}, "the motion takes inf steps"),
        ({"path": ((-1e308, 0), (1e308, 0))}, "the motion takes inf steps"),
        ({"path": [(0, 0), (100, 100)] * 5000}, r"the motion takes 1e\+07 steps"),
        ({"fixation_us": 1e18}, r"the motion takes .* steps"),
        ({"saccade_us": 1e-300}, "the motion takes .* steps"),
        ({"saccade_us": 1e-300, "fixation_us": 0}, "a step of the motion takes .* us; expected 1e-06 or more"),
        ({"saccade_us": 1e18, "fixation_us": 0, "noise_rate": 0}, r"the simulation lasts 3e\+18 us"),
        ({"noise_rate": 1e15}, r"noise_rate: it makes about 3\.641e\+17 background events; expected 6\.711e\+07"),
        ({"sensor_size": (32768, 32768)}, r"sensor_size: got 1\.074e\+09 pixels"),
        ({"dark": 5e-324}, "dark: expected 1e-300 or more"),
        ({"seed": None}, "seed: expected an integer from 0 to .*, got None"),
        ({"seed": 1.5}, "seed: expected an integer from 0 to .*, got 1.5"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_simulations_without_end_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_saccades(bar(), **{"seed": 0, **change})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"loops": 10**7}, "loops: expected a whole number from 1 to 100000, got 10000000"),
        ({"amplitude": 1e9}, "the motion takes .* steps"),
        ({"loop_us": 1e18}, "the simulation lasts"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_drifts_without_end_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_drift(bar(), seed=0, **change)


@pytest.mark.parametrize(
    "times, message",
    [
        ([0, 1e300, 3e300], r"the simulation lasts 3e\+300 us; expected 9\.007e\+15 at most: are its times in micro"),
        ([0, 1.8e12, 3.6e12], "noise_rate: it makes about .* background events"),
        ([0, 1, np.inf], "the simulation lasts inf us"),
    ],
    ids=str,
)
def test_videos_without_end_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_video(np.stack([bar()] * 3), times, seed=0)


def test_a_simulation_hears_ctrl_c():
    """A minute's work: 80 saccades of 600 pixels before 640x480."""
    script = (
        "import numpy as np; from tmkt_kernels import events; print('ready', flush=True)\n"
        "image = np.tile(np.arange(256, dtype=np.uint8), (480, 3))[:, :640]\n"
        "events.simulate_saccades(image, sensor_size=(640, 480), path=[(-300, 0), (300, 0)] * 40, seed=0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert time.monotonic() - began < 10
    assert error.splitlines()[-1] == "KeyboardInterrupt"
