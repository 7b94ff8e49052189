"""Cameras fitted to recordings: the search, its draws, and runs with them."""

import importlib

import pytest
import torch

from tmkt.config import load_config
from tmkt.data import fitting, prepare, sample_pairs
from tmkt.data.fitted_cameras import LEGS, PARAMETERS, FittedCameras, cameras
from tmkt.data.pairs import ClassIndex, EventFrames
from tmkt.errors import UserError
from tmkt.training.trainer import train
from tmkt_kernels import Camera, Motion, simulate_frames

SENSOR = (24, 20)
PREPARE = importlib.import_module("tmkt.data.prepare")  # tmkt.data.prepare is the function


def shapes(count, generator):
    """Bars, discs and corners at random places, uint8 [3 count, 1, 20, 24], and their labels."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    place = 7 + 6 * torch.rand(3 * count, 2, 1, 1, generator=generator)
    dy, dx = y - place[:, 0], x - place[:, 1]
    labels = torch.arange(3).repeat(count)
    kinds = [(dx.abs() < 2) & (dy.abs() < 6), dx * dx + dy * dy < 20, ((dx.abs() < 2) | (dy.abs() < 2)) & (dx + dy > 0)]
    inside = torch.stack(kinds)[labels, torch.arange(3 * count)]
    return (30 + 200 * inside)[:, None].to(torch.uint8), labels


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"CANDIDATES": 16, "BEST": 4, "ROUNDS": 2, "IMAGES": 3}.items():
        monkeypatch.setattr(fitting, name, value)


@pytest.fixture
def fitted(tiny, quick):
    return tiny.replace(transfer__method="bridge", data__camera="fitted", data__motion="fitted")


@pytest.mark.slow
def test_a_fit_finds_the_path_and_the_contrast_of_recordings_of_other_images(monkeypatch):
    monkeypatch.setattr(fitting, "IMAGES", 12)
    monkeypatch.setattr(fitting, "ROUNDS", 30)
    generator = torch.Generator().manual_seed(0)
    path = torch.tensor([[-2.0, -1.0], [0.0, 2.5], [2.5, -1.5], [-2.0, -1.0]], dtype=torch.float64)
    shown, labels = shapes(5, generator)
    motion = Motion.along(15, path.tolist(), leg_us=80_000, rest_us=20_000, smooth=True, fill=1.0)
    camera = Camera.draw(15, {"threshold": (0.3, 0.3), "noise_rate": (0.2, 0.2)})
    seeds = torch.arange(15)
    frames = simulate_frames(shown, None, motion, camera, fitting.STEPS, sensor_size=SENSOR, seed=seeds)
    recordings = EventFrames(frames, labels, tuple(map(str, range(15))))
    scenes, classes = shapes(40, generator)
    found, distance = fitting.fit_cameras(recordings, scenes, ClassIndex.of(classes, 3), SENSOR, seed=1)
    assert distance < 0.15
    moves = found.mean[: 2 * (LEGS + 1)].view(-1, 2).diff(dim=0)
    assert (moves - path.diff(dim=0)).abs().max() < 0.8
    threshold = found.draw(50, generator)[1].threshold.mean().item()
    assert threshold == pytest.approx(0.3, rel=0.3)


def test_a_search_depends_on_its_seed_alone_and_comes_nearer(quick):
    generator = torch.Generator().manual_seed(0)
    scenes, labels = shapes(4, generator)
    motion = Motion.draw(12, generator=generator)
    frames = simulate_frames(scenes, None, motion, Camera.draw(12, {}), 24, sensor_size=SENSOR, seed=torch.arange(12))
    recordings = EventFrames(frames, labels, tuple(map(str, range(12))))
    index = ClassIndex.of(labels, 3)
    first, again, other = (fitting.fit_cameras(recordings, scenes, index, SENSOR, seed) for seed in (3, 3, 4))
    assert torch.equal(first[0].mean, again[0].mean)
    assert first[1] == again[1]
    assert not torch.equal(first[0].mean, other[0].mean)
    assert (first[0].spread / FittedCameras.before(SENSOR).spread).mean() < 0.9


def test_draws_keep_the_bounds_of_the_parameters():
    before = FittedCameras.before((34, 34))
    assert len(before.mean) == 2 * (LEGS + 1) + len(PARAMETERS)
    wide = FittedCameras(before.mean, 20 * before.spread)
    motion, camera = wide.draw(500, torch.Generator().manual_seed(0))
    limits = {p.name: (p.low, p.high) for p in PARAMETERS}
    for name in ("threshold", "dark", "mismatch", "latency_us", "refractory_us", "noise_rate", "noise_on_share"):
        values, (low, high) = getattr(camera, name), limits[name]
        assert values.min() >= low * (1 - 1e-12)
        assert values.max() <= high * (1 + 1e-12)
        assert values.unique().numel() > 2
    assert (motion.rest_us / (motion.leg_us + motion.rest_us)).max() <= 0.6 + 1e-12
    middle, _ = cameras(before.mean[None])
    assert middle.fill.item() == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.camera=fitted"], "data.motion: cameras and motions are fitted together"),
        (["data.motion=fitted"], "data.camera: cameras and motions are fitted together"),
        (
            ["data.camera=fitted", "data.motion=fitted", "data.events.source=camera", "data.events.test_root=a"],
            "data.camera: no recording trains",
        ),
    ],
)
def test_contradictions_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        load_config(None, settings)


def test_cameras_are_fitted_once_before_the_first_step(fitted, monkeypatch, capsys):
    fits, fit = [], fitting.fit_cameras

    def counted(recordings, *arguments):
        fits.append(recordings.frames.shape)
        return fit(recordings, *arguments)

    monkeypatch.setattr(PREPARE, "fit_cameras", counted)
    data = prepare(fitted)
    assert fits == []  # evaluation prepares the same data, and needs no camera
    train(fitted, data)
    recordings = len(data.train.events)
    assert fits == [(fitting.STEPS, recordings, 2, 16, 16)]
    assert f"cameras fitted to {recordings} recordings; distance" in capsys.readouterr().err
    motion = sample_pairs(data.train, 6, torch.Generator().manual_seed(0)).simulated.motion
    assert motion.path.shape == (6, LEGS + 1, 2)


def test_a_resumed_run_fits_the_same_cameras(fitted):
    found = [prepare(fitted).train.camera.fitted() for _ in range(2)]
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(found[0].spread, found[1].spread)


def test_recordings_without_events_are_refused(quick):
    scenes, labels = shapes(2, torch.Generator().manual_seed(0))
    empty = EventFrames(torch.zeros(fitting.STEPS, 6, 2, 20, 24), labels, tuple(map(str, range(6))))
    with pytest.raises(UserError, match=r"^data\.camera: fitted: the 6 training recordings hold no events"):
        fitting.fit_cameras(empty, scenes, ClassIndex.of(labels, 3), SENSOR, 0)


def test_many_recordings_are_fitted_by_some_of_each_class(fitted, monkeypatch):
    monkeypatch.setattr(PREPARE, "MOST", 4)
    seen = []
    monkeypatch.setattr(PREPARE, "fit_cameras", lambda recordings, *_: seen.append(recordings) or (None, 0.0))
    data = prepare(fitted)
    data.train.ready()
    assert len(seen[0]) <= 4 < len(data.train.events)
    assert set(seen[0].labels.tolist()) == set(range(3))
