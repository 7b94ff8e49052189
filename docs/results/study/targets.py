"""The two sets of docs/study.md: what a run of it trains on, validates on and is tested on."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import voltmeter

from tmkt.config import Config, load_config
from tmkt.data import EventFrames, PairedData, RunData, prepare
from tmkt.data.camera import SimulatedCamera
from tmkt.data.fitted_cameras import FittedCameras
from tmkt.data.fitting import STEPS, fit_cameras
from tmkt.data.pairs import ClassIndex
from tmkt.data.sources.opening import open_events, open_pair
from tmkt.data.twins import known_twins

HERE, TEMPORARY = Path(__file__).parent, Path(tempfile.gettempdir()) / "tmkt-study"
ROOT = os.environ.get("TMKT_DATA", "data")
SPLIT_SEED = 0
TUNING_STEPS = 300  # of the search; the best settings are then compared over the whole training
COMMON = (
    f"seed={SPLIT_SEED}",
    "data.time_steps=6",
    "data.camera=fitted",
    "data.motion=fitted",
    "model.heads=1",
    "transfer.teacher={steps: 100, batch: 32}",
    "train={steps: 600, batch: 20, log_every: 1000000, eval_every: 60, checkpoint_every: 1000000, device: cpu}",
)


@dataclass(frozen=True)
class Target:
    """A set of images with recordings.

    counts: training recordings per class, of which the first is tuned at; None: all that are not held out. images: per
    class, None: all. scarce: recordings that a run leaves validate while tuning, so that their images are held out,
    too.
    """

    name: str
    settings: tuple[str, ...]
    counts: tuple[int | None, ...]
    seeds: int
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]
    trials: int
    images: int | None
    scarce: bool
    make: Callable[[Path], None] | None = None  # the recordings

    @property
    def folder(self) -> Path:
        return HERE / self.name


TARGETS = {
    "nmnist": Target(
        "nmnist",
        (
            "data.crop_padding=2",
            "data.static.source=MNIST",
            f"data.static.root={ROOT}",
            "data.static.fit=pad",
            "data.static.exclude_twins=nmnist",
            f"data.events.root={ROOT}/N-MNIST-small/Train",
            "data.events.invert=true",
            "data.events.train_per_class=20",
            "data.events.validation_per_class=10",  # the test recordings are the remaining 500
            "model.options={channels: [8, 16, 32]}",
        ),
        counts=(5, 2, 20),
        seeds=20,
        tuning_seeds=(101, 102),
        confirming_seeds=(103, 104),
        trials=8,
        images=100,
        scarce=True,
    ),
    "caltech": Target(
        "caltech",
        (
            "data.size=[48, 48]",
            "data.crop_padding=null",
            "data.flip=true",
            f"data.classes={HERE}/caltech20.csv",
            "data.static.source=folder",
            f"data.static.root={ROOT}/caltech101",
            "data.static.exclude_twins=name",
            f"data.events.root={TEMPORARY}/caltech20",
            "data.events.sensor_size=[64, 48]",
            "data.events.train_per_class=50",
            "data.events.validation_per_class=10",
            "data.events.test_per_class=25",
            "model.options={channels: [16, 32, 64]}",
        ),
        counts=(5, 20, None),
        seeds=5,
        tuning_seeds=(101,),
        confirming_seeds=(102,),
        trials=8,
        images=None,
        scarce=False,
        make=voltmeter.main,
    ),
}


class Everything(NamedTuple):
    """All images and recordings of a target; `fine` are its training recordings in the steps that cameras are fitted
    in, `labels` those of the images, `shown` the rows of the images that training and held-out recordings show."""

    base: Config
    whole: RunData
    fine: EventFrames
    labels: np.ndarray
    shown: dict[str, np.ndarray]


@cache
def everything(target: Target) -> Everything:
    torch.set_num_threads(1)
    TEMPORARY.mkdir(exist_ok=True)
    base = load_config(None, [*COMMON, *target.settings])
    if target.make and not Path(base.data.events.root).exists():
        part = Path(base.data.events.root).with_suffix(".part")
        target.make(part)
        part.rename(base.data.events.root)
    every = base.replace(data__static__exclude_twins="none", data__bridge="camera")
    whole, fine = prepare(every), prepare(every.replace(data__time_steps=STEPS))
    images, classes = open_pair(base)
    recordings = open_events(base, images, classes).recordings()
    twins = known_twins(recordings, images, base.data.static)
    twin = dict(zip((recording.name for recording in recordings), twins.tolist(), strict=True))
    row = {image: row for row, image in enumerate(whole.record["static_images"])}
    parts = {"pool": whole.record["train"], "held": whole.record["validation"] + whole.record["test"]}
    shown = {part: np.array([row[twin[name]] for name in names]) for part, names in parts.items()}
    return Everything(base, whole, fine.train.events, images.labels[list(row)], shown)


def drawn(target: Target, count: int | None, config: Config, *, tuning: bool, twins: bool) -> RunData:
    """Draw training recordings and images of each class with the seed of `config`.

    tuning: validation recordings take the place of the test recordings. twins: images that held-out recordings show
    come first; otherwise there are none of them.
    """
    _, whole, fine, image_labels, shown = everything(target)
    labels, rng = whole.train.events.labels.numpy(), np.random.default_rng([config.seed, 77])
    classes = range(len(whole.classes))
    order = [rng.permutation(np.flatnonzero(labels == k)) for k in classes]
    rows = np.sort(np.concatenate([members[:count] for members in order]))
    test = whole.validation if tuning else whole.test
    if tuning and target.scarce:
        left = pick(whole.train.events, np.setdiff1d(np.arange(len(labels)), rows))
        joined = (
            torch.cat([test.frames, left.frames], 1),
            torch.cat([test.labels, left.labels]),
            test.names + left.names,
        )
        test = EventFrames(*joined)
    barred = np.concatenate([shown["held"], shown["pool"]]) if target.scarce else shown["held"]
    candidates = rng.permutation(np.setdiff1d(np.arange(len(image_labels)), barred))
    if twins:
        candidates = np.concatenate([shown["held"], candidates])
    chosen = np.concatenate([candidates[image_labels[candidates] == k][: target.images] for k in classes])
    chosen_labels = torch.from_numpy(image_labels[chosen])
    camera = None
    if config.simulated is not None:
        assert whole.train.camera is not None
        camera = SimulatedCamera(whole.train.camera.images[chosen], config.data, *config.simulated)
        if config.data.camera == "fitted":
            name = f"cameras-{target.name}-{target.images}-{twins}-{count}-{config.seed}.pt"
            index = ClassIndex.of(chosen_labels, len(whole.classes))
            found = fitted(TEMPORARY / name, pick(fine, rows), camera.images, index, config)
            camera = replace(camera, fitted=lambda: found)
    events = pick(whole.train.events, rows)
    paired = PairedData(whole.train.images[chosen], chosen_labels, events, len(whole.classes), None, camera)
    return replace(whole, train=paired, test=test)


def pick(events: EventFrames, rows: np.ndarray) -> EventFrames:
    chosen = torch.from_numpy(rows)
    return EventFrames(events.frames[:, chosen], events.labels[chosen], tuple(events.names[i] for i in rows))


def fitted(
    path: Path, recordings: EventFrames, scenes: torch.Tensor, index: ClassIndex, config: Config
) -> FittedCameras:
    """Fit the cameras to a run's training recordings, as `tmkt train` does, or take them from an earlier run."""
    if not path.exists():
        assert config.data.sensor_size is not None
        found, _ = fit_cameras(recordings, scenes, index, config.data.sensor_size, config.seed)
        part = path.with_suffix(f".{os.getpid()}")
        torch.save((found.mean, found.spread), part)
        part.replace(path)
    return FittedCameras(*torch.load(path))
