"""Recordings of Caltech101's images by a camera of other physics than tmkt's simulator: `python .../voltmeter.py OUT`.

The pixels follow DVS-Voltmeter (Lin et al., ECCV 2022): the voltage of a pixel is a Brownian motion with drift, and an
event is emitted and the voltage reset wherever it reaches 1 or -1. Its constants are the paper's for the DVS346. The
image moves along a circle, not along saccades. OUT/<class>/<image>.bin has one recording of each image of the classes
of caltech20.csv. Needs TMKT_DATA, the folder of caltech101.
"""

import csv
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tmkt_kernels.events import EVENT_DTYPE, write_bin

SENSOR = (64, 48)
K1, K2, K3, K4, K5, K6 = 5.265, 20.0, 1e-4, 1e-7, 5e-9, 1e-5
DURATION_US, STEP_US = 300_000, 1_000
TURNS, RADIUS, JITTER = 1.0, 2.0, 0.1  # of the circle: turns in a recording, pixels, and spread of radius and phase
CLASSES = Path(__file__).with_name("caltech20.csv")
TOGETHER = 50


def main(out: Path) -> None:
    root = Path(os.environ.get("TMKT_DATA", "data")) / "caltech101"
    with CLASSES.open(encoding="utf-8") as file:
        names = [row["class"] for row in csv.DictReader(line for line in file if line[0] != "#") if row["class"]]
    paths = [path for name in names for path in sorted((root / name).iterdir())]
    parts = [paths[start : start + TOGETHER] for start in range(0, len(paths), TOGETHER)]
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        for number, _ in enumerate(pool.map(make, [out] * len(parts), parts, range(len(parts))), 1):
            print(f"simulating recordings: {number} of {len(parts)} parts", flush=True)


def make(out: Path, images: list[Path], seed: int) -> None:
    """Record images, each into OUT/<class>/<image>.bin."""
    torch.set_num_threads(1)
    scenes = torch.stack([luminance(path) for path in images])
    for path, events in zip(images, record(scenes, torch.Generator().manual_seed(seed)), strict=True):
        write_bin(out / path.parent.name / f"{path.stem}.bin", events)


def luminance(path: Path) -> Tensor:
    """float32 [2 H, 2 W] in 0..255: the image as large as it fits the sensor, on its mean, at twice the resolution."""
    image = Image.open(path).convert("L")
    width, height = (2 * side for side in SENSOR)
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX), np.float32)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    shown = np.full((height, width), pixels.mean(), np.float32)
    shown[top : top + size[1], left : left + size[0]] = pixels
    return torch.from_numpy(shown)


def record(scenes: Tensor, generator: torch.Generator) -> list[np.ndarray]:
    """Record scenes [N, 2 H, 2 W] -> N structured arrays of events."""
    count, steps = len(scenes), DURATION_US // STEP_US
    radius = RADIUS * (1 + JITTER * torch.randn(count, generator=generator))
    phase = JITTER * 2 * math.pi * torch.randn(count, generator=generator)
    voltage = 2 * torch.rand(count, *SENSOR[::-1], generator=generator) - 1
    before, found = seen(scenes, radius, phase), []
    for step in range(1, steps + 1):
        now = seen(scenes, radius, phase + 2 * math.pi * TURNS * step / steps)
        mean = (before + now) / 2
        drift = K1 / (mean + K2) * (now - before) + (K4 + K5 * mean) * STEP_US
        spread = (K3 * mean.sqrt() / (mean + K2) + K6) * STEP_US**0.5
        voltage += drift + spread * torch.randn(voltage.shape, generator=generator)
        crossed = voltage.trunc()
        voltage -= crossed
        where = crossed.nonzero()
        found.append(
            torch.cat([where, torch.full_like(where[:, :1], step), crossed[tuple(where.T)][:, None].long()], 1)
        )
        before = now
    return events_of(torch.cat(found), count, generator)


def seen(scenes: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """What the sensor [N, H, W] sees of the scenes when they are moved to an angle of the circle."""
    width, height = SENSOR
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    moved_x = x - (radius * angle.cos())[:, None, None]
    moved_y = y - (radius * angle.sin())[:, None, None]
    grid = torch.stack([2 * moved_x / width - 1, 2 * moved_y / height - 1], -1)
    return F.grid_sample(scenes[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def events_of(found: Tensor, count: int, generator: torch.Generator) -> list[np.ndarray]:
    """Rows (recording, y, x, step, signed crossings) -> events of each recording, at random times within their step."""
    rows = found.repeat_interleave(found[:, 4].abs(), 0)
    times = (rows[:, 3] - 1) * STEP_US + torch.randint(STEP_US, (len(rows),), generator=generator)
    order = torch.argsort(times, stable=True)
    rows, times = rows[order], times[order]
    recordings = []
    for number in range(count):
        mine = rows[:, 0] == number
        events = np.empty(int(mine.sum()), EVENT_DTYPE)
        events["y"], events["x"] = rows[mine, 1].numpy(), rows[mine, 2].numpy()
        events["t"], events["p"] = times[mine].numpy(), (rows[mine, 4] > 0).numpy()
        recordings.append(events)
    return recordings


if __name__ == "__main__":
    main(Path(sys.argv[1]))
