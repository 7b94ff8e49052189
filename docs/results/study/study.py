"""The study of docs/study.md: every run of it, resumable. `python docs/results/study/study.py JOBS STAGE...` appends
one JSON line per run to <STAGE>.jsonl beside this file and skips the runs that it already has.

    tune    7 settings for each method, 5 recordings per class, 2 seeds, scored on validation recordings only
    grid    each method at its best setting, 5, 20 and 40 recordings per class, scored on the test recordings
    ablate  tmkt with one change, 5 recordings per class
    longer  three times the steps, 5 recordings per class
    cifar   CIFAR-10 images to events simulated from other CIFAR-10 images, 20 per class

Needs TMKT_DATA, the folder of MNIST, N-MNIST-small and cifar10_small.npz.
"""

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from tmkt.config import Config, load_config
from tmkt.data import EventFrames, PairedData, RunData, prepare
from tmkt.training.trainer import Trainer

HERE = Path(__file__).parent
ROOT = os.environ.get("TMKT_DATA", "data")
SPLIT_SEED, SEEDS, TUNING_SEEDS = 0, (1, 2, 3, 4, 5), (101, 102)
COUNTS = (5, 20, 40)  # training recordings per class
SETTINGS = (
    "data.time_steps=6",
    "data.crop_padding=2",
    "data.static.per_class=100",
    "model.options={channels: [8, 16, 32]}",
    "model.heads=1",
    "transfer.ratio=0.3",
    "transfer.teacher={steps: 100, batch: 32}",
    "train={steps: 150, batch: 20, log_every: 1000000, eval_every: 1000000, checkpoint_every: 1000000, device: cpu}",
)
NMNIST = (
    "data.static.source=MNIST",
    f"data.static.root={ROOT}",
    "data.static.fit=pad",
    "data.static.exclude_twins=nmnist",
    f"data.events.root={ROOT}/N-MNIST-small/Train",
    "data.events.train_per_class=40",
    "data.events.validation_per_class=12",  # the test recordings are the remaining 280
)
CIFAR = (
    "data.size=[32, 32]",
    "data.static.source=ImageFolder",
    f"data.static.root={tempfile.gettempdir()}/study-cifar10",
    "data.static.per_class=250",
    "data.events.source=simulated",
    "data.events.sensor_size=[32, 32]",
    "data.events.train_per_class=40",
    "data.events.validation_per_class=12",
    "data.events.test_per_class=60",
)
METHODS = ("events_only", "static_only", "finetune", "joint", "sliding", "ckd", "tmkt")
RATES = tuple({"train.lr": lr} for lr in (2e-3, 5e-3, 1e-2, 2e-2))
ONE_STREAM = ({"train.weight_decay": 0.0}, {"train.weight_decay": 0.1}, {"transfer.classification": "ce"})
ALTERNATIVES = {
    **dict.fromkeys(("events_only", "static_only", "finetune"), ONE_STREAM),
    "joint": ({"model.heads": 2}, {"transfer.da_weight": 0.0}, {"transfer.classification": "ce"}),
    "sliding": ({"model.heads": 2}, {"transfer.da_weight": 0.0}, {"transfer.power": 1.0}),
    "ckd": ({"model.heads": 2}, {"transfer.teacher.weight": 0.3}, {"transfer.power": 1.0}),
    "tmkt": (
        {"model.heads": 2},
        {"transfer.ratio": 0.5},
        {"transfer.ratio": 0.0, "transfer.ratio_end": 1.0, "transfer.schedule": "linear"},
    ),
}

TO_ALL = {"transfer.ratio": 0.0, "transfer.ratio_end": 1.0}
FIXED = {"transfer.schedule": "constant", "transfer.ratio_end": None}
ABLATIONS: dict[str, dict[str, Any]] = {
    "no TSM": {"transfer.mixing": "sample"},
    "no DA": {"transfer.da_weight": 0.0},
    "no MAG": {"transfer.mag_weight": 0.0},
    "no MRP": {"transfer.mrp_weight": 0.0},
    "two heads": {"model.heads": 2},
    "spike features": {"transfer.features": "spikes"},
    "CE, not TET": {"transfer.classification": "ce"},
    "joint streams": {"transfer.streams": "joint"},
    "learnable DA": {"transfer.da_learnable": True},
    "MAG on events": {"transfer.mag_on_events": True},
    **{f"r {r}": {"transfer.ratio": r, **FIXED} for r in (0.1, 0.5)},
    **{f"r {kind} 0 to 1": {**TO_ALL, "transfer.schedule": kind} for kind in ("linear", "random")},
}


class Cell(NamedTuple):
    """One run; `name` is its row in the report."""

    name: str
    method: str
    count: int
    seed: int
    changes: dict[str, Any]

    @property
    def key(self) -> str:
        return json.dumps([self.name, self.method, self.count, self.seed, self.changes])


def main(jobs: int, *stages: str) -> None:
    for stage in stages:
        prepared(stage == "cifar")  # before the fork, so that the processes share it
        while cells := list(missing(stage)):  # the next cells of `tune` depend on its results
            with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
                futures = [pool.submit(run, cell, stage) for cell in cells]
                for number, future in enumerate(as_completed(futures), 1):
                    record = future.result()
                    with (HERE / f"{stage}.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                    print(f"{stage} {number}/{len(cells)} {record['key']}: {record['validation']:.3f}", flush=True)


def missing(stage: str) -> Iterator[Cell]:
    done = {record["key"] for record in read(stage)}
    return (cell for cell in STAGES[stage]() if cell.key not in done)


@cache
def prepared(cifar10: bool) -> tuple[Config, RunData]:
    if cifar10:
        unpack_cifar(Path(tempfile.gettempdir()) / "study-cifar10")
    base = load_config(None, [*SETTINGS, *(CIFAR if cifar10 else NMNIST), f"seed={SPLIT_SEED}"])
    return base, prepare(base)


def unpack_cifar(root: Path) -> None:
    """Unpack cifar10_small.npz into the folders that torchvision's ImageFolder reads."""
    if root.exists():
        return
    arrays = np.load(f"{ROOT}/cifar10_small.npz")
    for number, (image, label) in enumerate(zip(arrays["train_images"], arrays["train_labels"], strict=True)):
        folder = root.with_suffix(".part") / str(arrays["class_names"][label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:05d}.png")
    root.with_suffix(".part").rename(root)


def run(cell: Cell, stage: str) -> dict[str, Any]:
    """Train one cell in a temporary folder; the seed also draws its training recordings."""
    began = time.process_time()
    base, data = prepared(stage == "cifar")
    with tempfile.TemporaryDirectory() as folder:
        config = base.replace(seed=cell.seed, out=folder, transfer__method=cell.method, **dotted(cell.changes))
        ours = subset(data, cell.count, cell.seed)
        tuning = stage == "tune"  # without the test recordings
        trainer = Trainer(config, replace(ours, test=ours.validation if tuning else ours.test))
        teacher = Path(tempfile.gettempdir()) / f"study-teacher-{stage == 'cifar'}-{cell.seed}.safetensors"
        if cell.method == "ckd" and teacher.exists():  # it depends only on the seed and the images
            shutil.copy(teacher, Path(folder) / "teacher.safetensors")
        trainer.run()
        if cell.method == "ckd":
            shutil.copy(Path(folder) / "teacher.safetensors", teacher)
    record = {"key": cell.key, **cell._asdict(), "validation": float(np.mean(right(trainer, ours.validation, config)))}
    if not tuning:
        record["test_right"] = "".join(str(int(r)) for r in right(trainer, ours.test, config))
    return {**record, "cpu_seconds": round(time.process_time() - began, 1)}


def subset(data: RunData, count: int, seed: int) -> RunData:
    """Keep validation and test recordings, and draw `count` training recordings per class with the seed."""
    events, rng = data.train.events, np.random.default_rng([seed, 77])
    labels = events.labels.numpy()
    chosen = [rng.permutation(np.flatnonzero(labels == k))[:count] for k in range(len(data.classes))]
    rows = torch.from_numpy(np.sort(np.concatenate(chosen)))
    few = EventFrames(events.frames[:, rows], events.labels[rows], tuple(events.names[i] for i in rows))
    by_class = data.train.static_by_class
    image_labels = torch.empty_like(by_class.order)
    image_labels[by_class.order] = torch.repeat_interleave(torch.arange(len(data.classes)), by_class.size)
    return replace(data, train=PairedData(data.train.images, image_labels, few, len(data.classes)))


@torch.no_grad()
def right(trainer: Trainer, events: EventFrames, config: Config) -> np.ndarray:
    """bool [N]: whether the trained network classifies each recording right."""
    trainer.model.eval()
    logits = trainer.model(events.frames.float() * config.data.events.scale).logits.mean(0)
    return (logits.argmax(1) == events.labels).numpy()


def dotted(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.replace(".", "__"): value for key, value in changes.items()}


def read(stage: str) -> list[dict[str, Any]]:
    path = HERE / f"{stage}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def ranking(method: str) -> list[tuple[float, dict[str, Any]]]:
    """Return (mean validation accuracy, setting) of a method's tuned settings, best first."""
    scores = defaultdict(list)
    for record in read("tune"):
        if record["method"] == method:
            scores[json.dumps(record["changes"])].append(record["validation"])
    means = [(float(np.mean(values)), json.loads(text)) for text, values in scores.items()]
    return sorted(means, key=lambda pair: -pair[0])


def best(method: str) -> dict[str, Any]:
    return ranking(method)[0][1]


def tune() -> Iterator[Cell]:
    """Four learning rates, then three alternatives at the best of them: seven settings for each method."""
    for method in METHODS:
        for changes in RATES:
            for seed in TUNING_SEEDS:
                yield Cell(method, method, 5, seed, changes)
    done = read("tune")
    for method in METHODS:
        rates = [changes for _, changes in ranking(method) if changes.keys() == {"train.lr"}]
        tried = [r for r in done if r["method"] == method and r["changes"].keys() == {"train.lr"}]
        if len(tried) == len(RATES) * len(TUNING_SEEDS):  # otherwise a second call of this stage continues
            for changes in ALTERNATIVES[method]:
                for seed in TUNING_SEEDS:
                    yield Cell(method, method, 5, seed, {**rates[0], **changes})


def grid() -> Iterator[Cell]:
    for count in COUNTS:
        for seed in SEEDS:
            for method in METHODS:
                if method != "static_only" or count == 5:  # it reads no recording, so that one run serves every count
                    yield Cell(method, method, count, seed, best(method))
            # The other methods see two streams per step; here events_only sees as many sequences in total.
            yield Cell("events_only 2x", "events_only", count, seed, {**best("events_only"), "train.steps": 300})


def ablate() -> Iterator[Cell]:
    """One change to the best tmkt; changes without effect repeat the grid's runs."""
    for seed in SEEDS:
        for name, changes in ABLATIONS.items():
            yield Cell(name, "tmkt", 5, seed, {**best("tmkt"), **changes})


def longer() -> Iterator[Cell]:
    for seed in SEEDS[:3]:
        for method in ("events_only", "joint", "sliding", "tmkt"):
            yield Cell(method, method, 5, seed, {**best(method), "train.steps": 450})


def cifar() -> Iterator[Cell]:
    """The grid's settings, without separate tuning."""
    for seed in SEEDS[:3]:
        for method in ("events_only", "static_only", "finetune", "joint", "sliding", "tmkt"):
            yield Cell(method, method, 20, seed, best(method))


STAGES = {"tune": tune, "grid": grid, "ablate": ablate, "longer": longer, "cifar": cifar}

if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
