"""Simulated recordings: saccades, drift and video, against the model's formulas and the real recordings."""

import zlib

import numpy as np
import pytest
from interrupting import assert_hears_ctrl_c

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")


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
    """A dark bar that moves right darkens the pixels ahead and uncovers those behind."""
    events = ev.simulate_saccades(bar(), seed=0, noise_rate=0, path=((-3, 0), (3, 0)))
    ahead, behind = events[events["x"] >= 19], events[events["x"] < 14]  # the bar goes from 12..15 to 18..21
    assert len(ahead) > 50
    assert not ahead["p"].any()
    assert len(behind) > 50
    assert behind["p"].all()


def test_threshold_crossings_count_the_log_contrast():
    """Without mismatch, latency and refractory period, a full step gives floor(contrast / threshold) events."""
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
    """The same seed gives the same recording on every platform. Only a change of the model may change this."""
    assert zlib.crc32(ev.simulate_saccades(bar(), seed=7).tobytes()) == 1572654856


@pytest.mark.parametrize("shape, sensor", [((8, 8), (34, 34)), ((96, 64), (34, 34)), ((32, 32), (64, 48))], ids=str)
def test_simulation_of_other_sizes(shape, sensor):
    image = np.zeros(shape)
    image[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : -(shape[1] // 4)] = 1
    events = ev.simulate_saccades(image, sensor_size=sensor, seed=0)
    assert len(events) > 500
    assert (events["x"].max(), events["y"].max()) < sensor


def test_drift_goes_around_the_loop():
    """Each of the loop's four legs shows the same edges again, with polarities swapped relative to the opposite leg."""
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


def test_simulated_digits_resemble_the_real_recordings(shared_data):
    images = np.fromfile(shared_data / "MNIST/raw/train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    paths = sorted((shared_data / "N-MNIST-small").rglob("*.bin"))[::16]
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
    "change, message",
    [
        ({"path": ((0, 0), (1e12, 0))}, r"the motion takes 1\.353e\+13 steps of 1/8 pixel.*expected 1e\+07 at most"),
        ({"path": ((0, 0), (1e300, 0))}, "the motion takes inf steps"),
        ({"path": ((-1e308, 0), (1e308, 0))}, "the motion takes inf steps"),
        ({"path": [(0, 0), (100, 100)] * 5000}, r"the motion takes 1\.915e\+07 steps"),
        ({"fixation_us": 1e18}, r"the motion takes .* steps"),
        ({"saccade_us": 1e-300}, "the motion takes .* steps"),
        ({"saccade_us": 1e-300, "fixation_us": 0}, "a step of the motion takes less than 1 us"),
        ({"saccade_us": 1e18, "fixation_us": 0, "noise_rate": 0}, r"the simulation lasts 3e\+18 us"),
        ({"noise_rate": 1e15}, "noise_rate: expected a finite number from 0 to 100000"),
        (
            {"noise_rate": 1e5, "sensor_size": (64, 64)},
            r"noise_rate: it makes about 1\.29e\+08 background events; expected 6\.711e\+07",
        ),
        ({"sensor_size": (32768, 32768)}, r"sensor_size: got 1\.074e\+09 pixels"),
        ({"dark": 5e-324}, "dark: expected a finite number of 1e-06 or more"),
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
        ([0, 1e300, 3e300], r"the simulation lasts 3e\+300 us; expected 1\.074e\+09 at most: are its times in micro"),
        ([0, 1.8e12, 3.6e12], r"the simulation lasts 3\.6e\+12 us"),
        ([0, 1, np.inf], "the simulation lasts inf us"),
    ],
    ids=str,
)
def test_videos_without_end_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        ev.simulate_video(np.stack([bar()] * 3), times, seed=0)


@pytest.mark.slow
def test_a_simulation_hears_ctrl_c():
    """A minute of work: 80 saccades of 600 pixels before 640x480."""
    script = (
        "import numpy as np; from tmkt_kernels import events; print('ready', flush=True)\n"
        "image = np.tile(np.arange(256, dtype=np.uint8), (480, 3))[:, :640]\n"
        "events.simulate_saccades(image, sensor_size=(640, 480), path=[(-300, 0), (300, 0)] * 40, seed=0)\n"
    )
    assert_hears_ctrl_c(script, within=10)
