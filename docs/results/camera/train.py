"""Trains on simulated recordings of MNIST images alone and tests on all real N-MNIST recordings at hand.

`python docs/results/camera/train.py` appends one JSON line per run to train.jsonl beside this file and skips the runs
that it already has: 2,000 or 100 images per class, cameras nmnist and any, drawn afresh in every step or once for each
image, five seeds. The images that the recordings show are left out. Needs TMKT_DATA, the folder of MNIST and
N-MNIST-small.
"""

import itertools
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tmkt.config import Config, load_config
from tmkt.data import RunData, prepare
from tmkt.data.camera import Draws, SimulatedCamera
from tmkt.training.trainer import Trainer

ROWS = Path(__file__).with_name("train.jsonl")
ROOT = os.environ.get("TMKT_DATA", "data")
KEYS = ("images", "camera", "drawn", "seed")
SETTINGS = (
    "data.time_steps=6",
    "data.crop_padding=2",
    "data.static.source=MNIST",
    f"data.static.root={ROOT}",
    "data.static.fit=pad",
    "data.static.exclude_twins=nmnist",
    "data.events.source=camera",
    f"data.events.test_root={ROOT}/N-MNIST-small/Train",
    "data.events.validation_per_class=0",
    "data.events.invert=true",  # N-MNIST shows its digits dark on bright
    "model.options={channels: [8, 16, 32]}",
    "model.heads=1",
    "transfer.method=events_only",
    "train={steps: 1500, batch: 20, lr: 0.007, log_every: 250, eval_every: 1500, checkpoint_every: 1500, device: cpu}",
)


@dataclass(frozen=True)
class DrawnOnce(SimulatedCamera):
    """The same cameras, but each image always has the recording that is drawn first."""

    recordings: Draws | None = None

    def draw(self, image_index: Tensor, generator: torch.Generator) -> Draws:
        if self.recordings is None:
            return super().draw(image_index, generator)
        used, _, motion, camera, seed = self.recordings
        return Draws(used[image_index], image_index, motion[image_index], camera[image_index], seed[image_index])

    @staticmethod
    def of(camera: SimulatedCamera, seed: int) -> "DrawnOnce":
        once = DrawnOnce(camera.images, camera.config, camera.place, camera.share)
        images = torch.arange(len(camera.images))
        return replace(once, recordings=once.draw(images, torch.Generator().manual_seed(seed)))


def run(config: Config, data: RunData, once: bool) -> tuple[int, int]:
    """Return correct and total recordings of a training."""
    camera = data.train.camera
    assert camera is not None
    if once:
        data.train.camera = DrawnOnce.of(camera, config.seed)
    with tempfile.TemporaryDirectory() as out:
        score = Trainer(config.replace(out=out), data).run()
    data.train.camera = camera
    return score.correct, score.total


def main() -> None:
    known = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in known}
    for images, seed, camera in itertools.product((2000, 100), range(1, 6), ("nmnist", "any")):
        left = [d for d in ("in every step", "once") if (images, camera, d, seed) not in done]
        if not left:
            continue
        own = [f"data.static.per_class={images}", f"data.camera={camera}", f"data.motion={camera}", f"seed={seed}"]
        config = load_config(None, [*SETTINGS, *own])
        data = prepare(config)
        for drawn in left:
            began = time.monotonic()
            correct, total = run(config, data, drawn == "once")
            row = dict(zip(KEYS, (images, camera, drawn, seed), strict=True))
            row |= {"correct": correct, "total": total, "seconds": round(time.monotonic() - began)}
            with ROWS.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
