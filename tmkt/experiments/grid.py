"""A grid of runs, each made by `tmkt train` in a process of its own: parallel, resumable, one failure stays one."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ..config import Config, load_config
from ..errors import UserError
from ..identity import check_same_run
from ..progress import bar, console
from ..runs import is_finished, read_metrics

_POLL_SECONDS = 0.5


@dataclass(frozen=True, eq=False)  # a cell equals itself alone: a key of dictionaries
class Cell:
    """One run of the grid: its place in it, its configuration, and the arguments of `tmkt train` that make it."""

    method: str
    per_class: int
    seed: int
    config: Config
    arguments: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path(self.config.out)

    @property
    def command(self) -> str:
        return shlex.join(["tmkt", "train", *self.arguments])

    @property
    def title(self) -> str:
        return f"{self.method}, {self.per_class} a class, seed {self.seed}"


def parse_method(text: str) -> tuple[str, list[str]]:
    """(name, settings): `tmkt` is that method; `NAME:key=value[:key=value ...]` is the configuration with these."""
    name, *overrides = text.split(":")
    if not re.fullmatch(r"[\w.+-]+", name) or not all("=" in override for override in overrides):
        raise UserError(
            f"--methods: expected a method such as tmkt, or NAME:key=value such as no_mag:transfer.mag_weight=0, "
            f"got {text!r}; settings of all runs stand right after CONFIG.yaml"
        )
    return name, overrides or [f"transfer.method={name}"]


def make_grid(
    config: str | Path,
    overrides: Sequence[str],
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    per_class: Sequence[int],
    out: str | Path,
) -> list[Cell]:
    """Every method at every number of recordings with every seed; a seed's runs come together.

    Args:
        per_class: recordings a class to train on; empty: as the configuration says.

    Raises:
        UserError: a bad setting of any cell, a name given twice, or a folder that holds another run.
    """
    variants = dict(parse_method(text) for text in methods)
    if not per_class:
        configured = load_config(config, overrides).data.events.train_per_class
        if configured is None:
            raise UserError("--per-class: the configuration's data.events.train_per_class is null; give numbers")
        per_class = [configured]
    for option, given in {"methods": methods, "seeds": seeds, "per-class": per_class}.items():
        distinct = variants if option == "methods" else set(given)
        if len(distinct) != len(given) or not given:
            raise UserError(f"--{option}: expected one or more, each once, got {list(given)}")
    cells = []
    for seed, count, (name, settings) in product(seeds, per_class, variants.items()):
        folder = Path(out) / "runs" / name / f"per_class_{count}" / f"seed_{seed}"
        own = [*settings, f"data.events.train_per_class={count}", f"seed={seed}", f"out={folder}"]
        arguments = [*overrides, *own]
        cells.append(Cell(name, count, seed, load_config(config, arguments), (str(config), *arguments)))
    for cell in cells:
        if (cell.folder / "config.yaml").exists():
            check_same_run(cell.config, cell.folder)
    return cells


def run_grid(cells: Sequence[Cell], jobs: int) -> dict[Cell, str]:
    """Make the runs that are not finished, `jobs` at a time. Returns why each failed cell failed.

    A run that was interrupted goes on from its last checkpoint. What a run prints is in its train.log. The cores are
    shared out between the jobs, unless OMP_NUM_THREADS says otherwise.
    """
    if jobs < 1:
        raise UserError(f"--jobs: expected at least 1, got {jobs}")
    waiting = deque(cell for cell in cells if not is_finished(cell.folder))
    if len(waiting) < len(cells):
        console.print(f"{len(cells) - len(waiting)} of {len(cells)} runs are finished already", highlight=False)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    running: dict[Cell, subprocess.Popen] = {}
    failed: dict[Cell, str] = {}
    with bar() as progress:
        total = progress.add_task("runs", total=len(cells), completed=len(cells) - len(waiting))
        tasks = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.popleft()
                    running[cell] = _start(cell, environment)
                    tasks[cell] = progress.add_task(cell.title, total=cell.config.train.steps)
                time.sleep(_POLL_SECONDS)
                for cell, process in list(running.items()):
                    progress.update(tasks[cell], completed=_steps_done(cell))
                    if process.poll() is None:
                        continue
                    del running[cell]
                    progress.remove_task(tasks.pop(cell))
                    progress.advance(total)
                    _report(cell, process.returncode, failed)
        finally:  # an interrupt: the runs stop too, and go on from their checkpoints next time
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return failed


def _start(cell: Cell, environment: dict[str, str]) -> subprocess.Popen:
    cell.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tmkt", "train", *cell.arguments]
    with (cell.folder / "train.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _steps_done(cell: Cell) -> int:
    records = read_metrics(cell.folder) if (cell.folder / "metrics.jsonl").exists() else []
    return records[-1]["step"] if records else 0


def _report(cell: Cell, returncode: int, failed: dict[Cell, str]) -> None:
    if returncode == 0 and is_finished(cell.folder):
        accuracy = read_metrics(cell.folder)[-1]["accuracy"]
        console.print(f"{cell.title}: test accuracy {accuracy:.3f}", highlight=False)
        return
    lines = (cell.folder / "train.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    failed[cell] = lines[-1] if lines else f"exit code {returncode}, nothing printed"
    console.print(f"[red]failed[/]: {cell.title}: {failed[cell]}  (all of it: {cell.folder / 'train.log'})")
