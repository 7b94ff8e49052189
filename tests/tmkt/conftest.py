"""Small data in the real layouts, made by the tests."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tmkt.config import Config, load_config
from tmkt.training import checkpoint as ckpt
from tmkt_kernels import events as ev


def make_recording(rng: np.random.Generator, label: int, size: int = 16, count: int = 400) -> np.ndarray:
    """Return events on a bar whose position depends on the class."""
    events = np.zeros(count, dtype=ev.EVENT_DTYPE)
    events["x"] = rng.integers(0, size, count)
    events["y"] = (5 * label + rng.integers(0, 3, count)) % size
    events["t"] = np.sort(rng.integers(0, 300_000, count))
    events["p"] = rng.integers(0, 2, count)
    return events


@pytest.fixture
def events() -> np.ndarray:
    """A recording of 500 events."""
    rng = np.random.default_rng(0)
    made = np.zeros(500, ev.EVENT_DTYPE)
    made["x"], made["y"] = rng.integers(0, 120, 500), rng.integers(0, 100, 500)
    made["t"], made["p"] = np.sort(rng.integers(0, 100_000, 500)), rng.integers(0, 2, 500)
    return made


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three classes of eight 16x16 recordings, <class>/<id>.bin."""
    rng = np.random.default_rng(0)
    for label in range(3):
        folder = tmp_path / "events" / str(label)
        folder.mkdir(parents=True)
        for i in range(8):
            ev.write_bin(folder / f"{8 * label + i + 1:05d}.bin", make_recording(rng, label))
    return tmp_path / "events"


@pytest.fixture
def tiny_settings(recordings: Path, tmp_path: Path) -> list[str]:
    """Overrides for a run of a few seconds: FakeData images paired with the recordings above."""
    return [
        f"out={tmp_path / 'run'}",
        "data.static.source=FakeData",
        "data.static.kwargs={size: 30, image_size: [3, 16, 16], num_classes: 3}",
        f"data.events.root={recordings}",
        "data.events.sensor_size=[16, 16]",
        "data.size=[16, 16]",
        "data.time_steps=4",
        "data.events.train_per_class=3",
        "data.events.validation_per_class=2",
        "data.crop_padding=1",
        "model.options={channels: [4, 8]}",
        "train.steps=8",
        "train.batch=6",
        "train.warmup=2",
        "train.log_every=2",
        "train.eval_every=4",
        "train.checkpoint_every=2",
        "train.device=cpu",
    ]


@pytest.fixture
def tiny(tiny_settings: list[str]) -> Config:
    return load_config(None, tiny_settings)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """rewrite(folder, step, task=, optimizer=, state=) replaces content of a checkpoint, with correct checksums."""

    def write(folder: Path, step: int, **content: bytes) -> None:
        path = folder / f"step-{step:08d}"
        manifest = json.loads((path / ckpt.MANIFEST).read_bytes())
        for file, data in content.items():
            name = {"task": ckpt.TASK, "optimizer": ckpt.OPTIMIZER, "state": ckpt.STATE}[file]
            (path / name).write_bytes(data)
            manifest[name] = sha256(data).hexdigest()
            manifest["bytes"][name] = len(data)
        (path / ckpt.MANIFEST).write_text(json.dumps(manifest))

    return write
