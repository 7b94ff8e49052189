"""The study of docs/study.md: every run of it, resumable. `python docs/results/study/study.py TARGET JOBS STAGE...`

    tune     settings for each method, searched by Optuna with equal trials of half the steps, at the first number of
             recordings
    confirm  the three best settings of each method with all steps, on other seeds; the best is the method's setting
    grid     each method at its setting, at each number of recordings, scored on the test recordings
    ablate   `bridge` at its setting with one change
    longer   three times the steps
    twins    images that the test recordings show are among the static images

TARGET is nmnist or caltech, see targets.py. The folder of that name beside this file has the search (tuning.journal)
and one JSON line per run (<STAGE>.jsonl); what is there is not run again. Settings are chosen on validation recordings
alone. Needs TMKT_DATA, the folder of MNIST, N-MNIST-small and caltech101, and optuna 5.
"""

import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from runs import METHODS, Cell, read, run
from search import best, choices, confirm, tune, write_settings
from targets import TARGETS, Target, everything

FURTHER: dict[str, list[Any]] = {
    "transfer.streams": ["separate", "joint", "domains"],
    "transfer.distillation": [False, True],
    "data.augment.nda": [False, True],
    "data.augment.cutmix": [0.0, 0.5],
    "data.augment.event_mix": [0.0, 0.5],
}
RANDOM = {"data.camera": "any", "data.motion": "any"}
LONGER = ("events_only", "joint", "sliding", "ckd", "tmkt", "bridge")
TWINS = ("joint", "ckd", "tmkt", "bridge")


def main(name: str, jobs: int, *stages: str) -> None:
    target = TARGETS[name]
    everything(target)  # before the fork, so that the processes share it
    target.folder.mkdir(exist_ok=True)
    for stage in stages:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
            if stage == "tune":
                list(pool.map(tune, [target] * len(METHODS), reversed(METHODS)))
                continue
            done = {record["key"] for record in read(target, stage)}
            cells = [cell for cell in STAGES[stage](target) if cell.key not in done]
            futures = [pool.submit(run, target, cell, stage) for cell in cells]
            for number, future in enumerate(as_completed(futures), 1):
                record = future.result()
                with (target.folder / f"{stage}.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{stage} {number}/{len(cells)} {record['key']}: {record['accuracy']:.3f}", flush=True)
        if stage == "confirm":
            write_settings(target)


def grid(target: Target) -> Iterator[Cell]:
    for count in target.counts:
        for seed in range(1, target.seeds + 1):
            for method in METHODS:
                yield Cell(method, method, count, seed, best(target, method))


def ablate(target: Target) -> Iterator[Cell]:
    """The setting of `bridge` with one change each; other methods at that setting, with and without a camera."""
    tuned = best(target, "bridge")
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    alone = {key: values for key, values in choices("bridge").items() if key != "transfer.average"}
    for key, values in {**alone, **FURTHER}.items():
        for value in values:
            if value != tuned.get(key, FURTHER.get(key, [None])[0]):
                rows[f"{key} {value}"] = ("bridge", {key: value})
    rows["no average"] = ("bridge", {"transfer.average": 0.0, "transfer.consistency_weight": 0.0})
    rows["average and consistency"] = ("bridge", {"transfer.average": 0.98, "transfer.consistency_weight": 1.0})
    rows["cameras at random"] = ("bridge", RANDOM)
    rows["joint, no simulated recordings"] = ("joint", {})
    rows["tmkt, no simulated recordings"] = ("tmkt", {"transfer.ratio": 0.3})
    for place, share in {"images": 1.0, "between": 1.0, "events": 0.5}.items():
        simulated = {"data.bridge": "camera", "data.bridge_place": place, "data.bridge_share": share}
        rows[f"tmkt, simulated {place}"] = ("tmkt", {"transfer.ratio": 0.3, **simulated})
    every = {"data.bridge": "camera", "data.bridge_place": "events", "data.bridge_share": 1.0}
    rows["joint, no real recording, cameras at random"] = ("joint", {**every, **RANDOM})
    for seed in range(1, 1 + min(8, target.seeds)):
        for name, (method, changes) in rows.items():
            setting = {**tuned, **changes}
            if setting != tuned or method != "bridge":
                yield Cell(name, method, target.counts[0], seed, setting)


def longer(target: Target) -> Iterator[Cell]:
    for seed in range(1, 6):
        for method in LONGER:
            yield Cell(method, method, target.counts[0], seed, {**best(target, method), "train.steps": 1800})


def twins(target: Target) -> Iterator[Cell]:
    for seed in range(1, 1 + min(8, target.seeds)):
        for method in TWINS:
            yield Cell(method, method, target.counts[0], seed, best(target, method))


STAGES = {"confirm": confirm, "grid": grid, "ablate": ablate, "longer": longer, "twins": twins}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
