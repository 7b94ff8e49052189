"""The simulated camera: what its parameters mean, how batches split, and which inputs are refused."""

import math

import pytest
import torch
from interrupting import assert_hears_ctrl_c

from tmkt_kernels import Camera, Motion, simulate_frames
from tmkt_kernels.events import SensorModel

STILL = {"path": [(0, 0), (0.01, 0)], "saccade_us": 1_000_000, "fixation_us": 0}


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def grey(level: int) -> torch.Tensor:
    return torch.full((1, 1, 30, 40), level, dtype=torch.uint8)


def still_events(image: torch.Tensor, **sensor: float) -> torch.Tensor:
    """Events of a second without motion, [off, on] per pixel."""
    camera = Camera.of(SensorModel(**{"noise_rate": 0.0} | sensor), 1)
    return simulate_frames(image, None, Motion.saccades(1, **STILL), camera, 1, seed=5)[0, 0].double()


def within(count: float, expected: float) -> bool:
    return abs(count - expected) < 5 * expected**0.5


def test_nothing_happens_without_motion_and_noise():
    assert still_events(grey(99)).sum() == 0


def test_noise_has_its_rate_and_share():
    off, on = still_events(grey(0), noise_rate=20.0, noise_on_share=0.75).sum((1, 2)).tolist()
    assert within(on, 0.75 * 20 * 1200)
    assert within(off, 0.25 * 20 * 1200)


@pytest.mark.parametrize("level, share", [(0, 1.0), (102, 0.68), (255, 0.2)])
def test_light_dims_the_noise(level, share):
    assert within(still_events(grey(level), noise_rate=20.0, noise_dimming=0.8).sum().item(), share * 20 * 1200)


def test_leak_fires_on_events_at_its_rate_at_any_time():
    frames = still_events(grey(50), leak_rate=30.0, mismatch=0.0, refractory_us=0.0)
    assert frames[0].sum() == 0
    assert frames[1].sum().item() == pytest.approx(30 * 1200, rel=0.01)
    assert frames[1].min() >= 29
    assert frames[1].max() <= 31
    camera = Camera.of(SensorModel(leak_rate=3.0, noise_rate=0.0), 1)
    early = simulate_frames(grey(50), None, Motion.saccades(1, **STILL), camera, 10, seed=5)
    assert (early.sum((1, 2, 3, 4)) > 200).all()  # the pixels begin at different points of their cycle


def test_hot_and_dead_pixels_have_their_shares():
    hot = still_events(grey(0), hot_share=0.1, hot_rate=100.0).sum(0)
    assert 80 < (hot > 50).sum() < 160
    assert (hot == 0).sum() == 1200 - (hot > 0).sum()
    assert (hot > 0).sum() == (hot > 50).sum()
    dead = still_events(grey(0), noise_rate=100.0, dead_share=0.25).sum(0)
    assert 240 < (dead == 0).sum() < 360


def test_thresholds_of_on_and_off_events_are_apart():
    step = torch.full((1, 1, 4, 200), 255, dtype=torch.uint8)
    step[..., :100] = 0
    crossing = {"path": [(4, 0), (-4, 0)], "saccade_us": 100_000, "fixation_us": 200_000, "fill": 200.0}
    sensor = {"dark": 0.1, "mismatch": 0.0, "latency_us": 0.0, "refractory_us": 0.0, "noise_rate": 0.0}
    counts = []
    for image in (step, 255 - step):
        camera = Camera.of(SensorModel(threshold=0.3, threshold_off=0.5, **sensor), 1)
        motion = Motion.saccades(1, **crossing)
        counts.append(simulate_frames(image, None, motion, camera, 1, sensor_size=(1, 1), seed=0).flatten().tolist())
    contrast = math.log(1.1 / 0.1)
    assert counts == [[0, int(contrast / 0.3)], [int(contrast / 0.5), 0]]


def test_mismatch_spreads_the_thresholds():
    """Near the threshold of a step, the share of pixels that fire follows the distribution of thresholds."""
    camera = {"dark": 0.1, "latency_us": 0.0, "refractory_us": 0.0, "noise_rate": 0.0}
    step = torch.full((1, 1, 60, 400), 255, dtype=torch.uint8)
    step[..., :200] = 153
    motion = Motion.saccades(1, path=[(60, 0), (-60, 0)], saccade_us=100_000, fixation_us=0, fill=10)
    contrast = math.log(1.1 / 0.7)
    shares = []
    for threshold in (contrast * 1.2, contrast, contrast / 1.2):
        sensor = Camera.of(SensorModel(threshold=threshold, mismatch=0.2, **camera), 1)
        frames = simulate_frames(step, None, motion, sensor, 1, sensor_size=(40, 60), seed=0)
        shares.append((frames[0, 0, 1] > 0).double().mean().item())
    assert shares[0] == pytest.approx(0.2, abs=0.04)  # 1 / 1.2 is 0.83 sigma below 1
    assert shares[1] == pytest.approx(0.5, abs=0.04)
    assert shares[2] == pytest.approx(0.84, abs=0.04)  # 1.2 is 1 sigma above


def test_parts_of_a_batch_equal_the_whole(target):
    backend, device = target
    generator = torch.Generator().manual_seed(3)
    motion, camera = Motion.draw(7, generator=generator), Camera.draw(7, generator=generator)
    index, seeds = torch.tensor([0, 2, 1, 1, 0, 2, 2]), torch.arange(7) * 2**61
    whole = simulate_frames(
        images().to(device), index.to(device), motion, camera, 4, (12, 11), seed=seeds, backend=backend
    )
    for part in (slice(0, 1), slice(1, 5), slice(5, 7)):
        own = index[part].to(device)
        alone = simulate_frames(
            images().to(device), own, motion[part], camera[part], 4, (12, 11), seed=seeds[part], backend=backend
        )
        assert torch.equal(whole[:, part], alone)


@pytest.mark.parametrize("size", [None, (12, 11)])
def test_first_frames_alone_are_those_of_the_whole(size, target):
    backend, device = target
    generator = torch.Generator().manual_seed(3)
    camera = Camera.draw(6, {"noise_rate": (1, 50), "leak_rate": (0, 20)}, generator=generator)
    scene = Motion.draw(6, generator=generator), camera, 5, size
    index, n_frames = torch.tensor([0, 2, 1, 1, 0, 2], device=device), torch.tensor([0, 1, 2, 3, 4, 5])
    whole, first = (
        simulate_frames(images().to(device), index, *scene, n_frames=n, seed=1, backend=backend)
        for n in (None, n_frames)
    )
    for b, n in enumerate(n_frames.tolist()):
        assert torch.equal(first[:n, b], whole[:n, b])
        assert not first[n:, b].any()
        assert whole[n:, b].any() or n == 5


@pytest.mark.parametrize("size", [None, (20, 15)])
def test_any_number_of_threads_gives_the_same_bits(size):
    """Also where two threads share one recording."""
    image = torch.randint(0, 256, (1, 1, 90, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scene = Motion.saccades(1), Camera.of(SensorModel(), 1), 3, size
    frames, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            frames.append(simulate_frames(image, None, *scene, seed=1))
    finally:
        torch.set_num_threads(threads)
    assert frames[0].sum() > 1000
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], frames[2])


def test_a_count_beyond_int16_is_an_error():
    camera = Camera.of(SensorModel(hot_share=1.0, hot_rate=100_000.0), 1)
    motion = Motion.saccades(1, **STILL)
    with pytest.raises(RuntimeError, match="more than 32767 events of one polarity at a pixel in one bin"):
        simulate_frames(images(1), None, motion, camera, 1, seed=0)
    resized = simulate_frames(images(1), None, motion, camera, 1, (3, 3), seed=0)
    assert resized.sum().item() == pytest.approx(100_000 * 72, rel=0.06)  # waits are whole microseconds


def test_colour_is_shown_by_its_luminance():
    colour = torch.randint(0, 256, (2, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    red, green, blue = colour.double().unbind(1)
    luminance = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    shown = ((77 * red + 150 * green + 29 * blue + 128) / 256).floor()[:, None]
    assert (shown - luminance).abs().max() < 1.5
    scene = (Motion.saccades(2), Camera.of(SensorModel(), 2), 3)
    assert torch.equal(
        simulate_frames(colour, None, *scene, seed=0), simulate_frames(shown.to(torch.uint8), None, *scene, seed=0)
    )


def test_draws_lie_in_their_ranges_and_follow_the_generator():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        ranges = {"threshold": (0.1, 0.4), "hot_share": (0.0, 0.1)}
        return Camera.draw(1000, ranges, generator=generator), Motion.draw(1000, legs=5, generator=generator)

    (camera, motion), (again, _), (other, _) = draw(0), draw(0), draw(1)
    assert camera.threshold.min() >= 0.1
    assert camera.threshold.max() <= 0.4
    assert camera.threshold.median().item() == pytest.approx(0.2, rel=0.1)  # uniform in the logarithm
    assert camera.hot_share.mean().item() == pytest.approx(0.05, rel=0.1)
    assert torch.equal(camera.threshold, camera.threshold_off)
    assert (camera.dark == SensorModel.dark).all()
    assert motion.path.shape == (1000, 6, 2)
    assert motion.path.square().sum(-1).sqrt().max() <= 6
    assert torch.equal(camera.threshold, again.threshold)
    assert not torch.equal(camera.threshold, other.threshold)


@pytest.mark.parametrize("rest_us", [0.0, 1e-9, 0.3, 0.999, 1.0, 1.5, 900.5])
def test_a_rest_takes_its_time_however_short_it_is(rest_us):
    motion = Motion.saccades(2, fixation_us=rest_us)
    steps = motion.steps((34, 34), torch.full((2,), 1e3, dtype=torch.float64))
    assert (steps.times[:, 1:, 2] > 0).all()
    assert (steps.times[:, -1, 1:].sum(1) == motion.duration_us()).all()
    assert motion.duration_us().tolist() == [int(3 * (81_000 + rest_us))] * 2


def test_draws_with_short_rests_are_simulated():
    generator = torch.Generator().manual_seed(0)
    motion = Motion.draw(3000, {"rest_us": (0, 3)}, generator=generator)
    assert (motion.rest_us < 1).sum() > 900
    steps = motion.steps((34, 34), torch.full((3000,), 1e3, dtype=torch.float64))
    alive = torch.arange(1, steps.times.shape[1]) < steps.n_steps[:, None]
    assert (steps.times[:, 1:, 2][alive] > 0).all()


def test_a_hand_moves_smoothly_as_far_as_asked():
    motion = Motion.handheld(200, amplitude=2.5, generator=torch.Generator().manual_seed(0))
    distance = motion.path.square().sum(-1)
    assert distance.mean(1).sqrt().allclose(torch.tensor(2.5, dtype=torch.float64))
    turns = motion.path.diff(n=2, dim=1).square().sum(-1).mean().sqrt()
    assert turns < 0.3 * motion.path.diff(dim=1).square().sum(-1).mean().sqrt()


def simulate(image=None, index=None, motion=None, camera=None, T=4, size=None, **keywords):
    motion = Motion.saccades(3) if motion is None else motion
    camera = Camera.of(SensorModel(), 3) if camera is None else camera
    return simulate_frames(
        images() if image is None else image, index, motion, camera, T, size, **{"seed": 0, **keywords}
    )


@pytest.mark.parametrize(
    "kind, call, message",
    [
        (TypeError, lambda: simulate(images().float()), r"images: expected uint8 .* got torch\.float32"),
        (ValueError, lambda: simulate(torch.zeros(3, 4, 8, 8, dtype=torch.uint8)), r"images: .* got shape \[3, 4, 8"),
        (ValueError, lambda: simulate(images()[:, 0]), r"images: expected .* got shape \[3, 8, 9\]"),
        (TypeError, lambda: simulate(images().to_sparse()), "images: expected a dense tensor"),
        (IndexError, lambda: simulate(index=torch.tensor([0, 1, 3])), r"image_index: expected values in 0\.\.2"),
        (IndexError, lambda: simulate(index=torch.tensor([0, 1, -1])), r"image_index: .* got -1\.\.1"),
        (TypeError, lambda: simulate(index=torch.tensor([0, 1, 2]).int()), "image_index: expected int64"),
        (ValueError, lambda: simulate(index=torch.tensor([0, 1])), r"image_index: expected shape \[3\]"),
        (ValueError, lambda: simulate(images(2)), "image_index: needed"),
        (ValueError, lambda: simulate(motion=Motion.saccades(2)), "camera: expected one for each of 2 motions"),
        (TypeError, lambda: simulate(motion=Camera.draw(3), camera=Motion.draw(3)), "motion, camera: expected a Mot"),
        (ValueError, lambda: simulate(T=0), "T: expected a number of frames"),
        (ValueError, lambda: simulate(T=2.0), "T: expected a number of frames"),
        (ValueError, lambda: simulate(T=True), "T: expected a number of frames"),
        (ValueError, lambda: simulate(n_frames=torch.tensor([0, 1, 5])), "n_frames: expected values from 0 to 4"),
        (ValueError, lambda: simulate(n_frames=torch.tensor([0, 1])), r"n_frames: expected int64 \[3\]"),
        (ValueError, lambda: simulate(n_frames=3), r"n_frames: expected int64 \[3\]"),
        (ValueError, lambda: simulate(size=(0, 3)), "size: expected"),
        (ValueError, lambda: simulate(size=5), "size: expected"),
        (ValueError, lambda: simulate(sensor_size=(2.5, 3)), "sensor_size: expected"),
        (ValueError, lambda: simulate(sensor_size=()), "sensor_size: expected"),
        (ValueError, lambda: simulate(seed=-1), "seed: expected an integer"),
        (ValueError, lambda: simulate(seed=torch.zeros(3)), r"seed: expected int64 \[3\]"),
        (ValueError, lambda: simulate(seed=None), "seed: expected an integer"),
        (ValueError, lambda: simulate(backend="best"), "backend: expected"),
        (ValueError, lambda: simulate(motion=Motion.saccades(3, saccade_us=1e9)), "the simulation lasts 3e"),
        (ValueError, lambda: simulate(motion=Motion.saccades(3, path=[(0, 0), (1e9, 0)])), "the motion takes"),
        (ValueError, lambda: simulate(motion=Motion.saccades(3, path=[(0, 0), (9e4, 9e4)], saccade_us=1e8)), "pixels"),
        (ValueError, lambda: simulate(motion=Motion.saccades(3, saccade_us=3)), "less than 1 us"),
        (ValueError, lambda: simulate(motion=Motion.saccades(3, fill=1e-9)), "fill: the image takes"),
        (ValueError, lambda: simulate(sensor_size=(9000, 9000)), "sensor_size: got"),
        (ValueError, lambda: Motion.saccades(3, path=[(0, 0), (math.nan, 0)]), "path: expected"),
        (ValueError, lambda: Motion.saccades(3, path="ab"), "path: expected"),
        (ValueError, lambda: Motion.saccades(3, fill=0), "fill: expected"),
        (ValueError, lambda: Motion.saccades(3, fill=math.nan), "fill: expected"),
        (ValueError, lambda: Motion.saccades(-1), "batch: expected"),
        (ValueError, lambda: Motion.drift(2, loops=1.5), "loops: expected a whole number"),
        (ValueError, lambda: Motion.draw(2, legs=0), "legs: expected a whole number"),
        (ValueError, lambda: Motion.handheld(2, amplitude=math.nan), "path: expected"),
        (ValueError, lambda: Camera.draw(2, "best"), "ranges: expected one of any"),
        (ValueError, lambda: Camera.draw(2, {"lens": (1, 2)}), "ranges: expected fields of .*; got lens"),
        (ValueError, lambda: Camera.draw(2, {"dark": (2, 1)}), r"ranges: expected \(lowest, highest\) of dark"),
        (ValueError, lambda: Camera.draw(2, {"dark": 3}), r"ranges: expected \(lowest, highest\) of dark"),
        (ValueError, lambda: Camera.draw(2.5), "batch: expected a whole number"),
        (ValueError, lambda: Camera.of(SensorModel(), -1), "batch: expected a whole number"),
        (ValueError, lambda: SensorModel(threshold=True), "threshold: expected"),
        (ValueError, lambda: SensorModel(threshold_off=0.001), "threshold_off: expected"),
        (ValueError, lambda: SensorModel(hot_share=0.6, dead_share=0.6), r"hot_share \+ dead_share: expected 1"),
        (ValueError, lambda: SensorModel(noise_rate=math.nan), "noise_rate: expected"),
        (ValueError, lambda: SensorModel(noise_dimming=1.5), "noise_dimming: expected a finite number from 0 to 1"),
    ],
)
def test_bad_inputs_are_named(kind, call, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.slow
def test_frames_hear_ctrl_c():
    script = (
        "import torch, tmkt_kernels as tk; print('ready', flush=True)\n"
        "images = torch.randint(0, 256, (1, 1, 480, 640), dtype=torch.uint8)\n"
        "motion, camera = tk.Motion.saccades(400), tk.Camera.draw(400)\n"
        "tk.simulate_frames(images, torch.zeros(400, dtype=torch.int64), motion, camera, 2, (48, 48), seed=0)\n"
    )
    assert_hears_ctrl_c(script, within=25)
