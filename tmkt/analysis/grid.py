"""A grid of runs, each by `tmkt train` in its own process: parallel, resumable, and independent in failure."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from .. import atomic_files
from ..config import Config, load_config
from ..data.sources.opening import as_recorded
from ..errors import UNHEARD, UserError
from ..progress import bar, say
from ..training.run_folder import RunFolder
from ..training.signals import child_environment

_POLL_SECONDS = 0.5


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can be a key of dictionaries
class Cell:
    """One run of the grid: its place, its configuration, and the arguments of `tmkt train` for it."""

    method: str
    per_class: int
    seed: int
    config: Config
    arguments: tuple[str, ...]

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.out)

    def make_folder(self) -> None:
        """Make `folder` if it is missing. No part of it below the grid's own folder may be a link."""
        path = self.folder.path
        *above, root = path.parents[:4]
        atomic_files.make_folder(root, *(folder.name for folder in reversed(above)), path.name)

    @property
    def command(self) -> str:
        return shlex.join(["tmkt", "train", *self.arguments])

    @property
    def title(self) -> str:
        return f"{self.method}, {self.per_class} per class, seed {self.seed}"


def parse_method(text: str) -> tuple[str, list[str]]:
    """Return (name, settings): `tmkt` is that method; `NAME:key=value[:key=value ...]` adds these settings."""
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
    """Return every method at every number of recordings with every seed, ordered by seed.

    Args:
        per_class: recordings per class to train on; empty: as in the configuration.

    Raises:
        UserError: a bad setting of any cell, a name given twice, or a folder that holds another run.
    """
    variants = dict(parse_method(text) for text in methods)
    if not per_class:
        configured = as_recorded(load_config(config, overrides)).data.events.train_per_class
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
        if cell.config.data.events.source == "camera" and cell.per_class:
            raise UserError("--per-class: events.source camera trains on no recordings; leave it out")
        cell.folder.check_same_run(cell.config)
    return cells


def run_grid(cells: Sequence[Cell], jobs: int) -> dict[Cell, str]:
    """Make the unfinished runs, `jobs` at a time. Returns the reason for each cell that failed.

    An interrupted run resumes from its last checkpoint; if another process is training it, this one waits. A run's
    output is appended to its train.log. The jobs divide the cores between them, unless OMP_NUM_THREADS is set. However
    this process ends, its runs end with it.
    """
    if jobs < 1:
        raise UserError(f"--jobs: expected at least 1, got {jobs}")
    waiting = deque(cell for cell in cells if not cell.folder.is_finished())
    if len(waiting) < len(cells):
        say(f"{len(cells) - len(waiting)} of {len(cells)} runs are finished already")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **child_environment()}
    running: dict[Cell, _Job] = {}
    failed: dict[Cell, str] = {}
    elsewhere: set[Cell] = set()
    with bar() as progress:
        total = progress.add_task("runs", total=len(cells), completed=len(cells) - len(waiting))
        tasks = {}
        try:
            while waiting or running:
                for _ in range(len(waiting)):
                    if len(running) == jobs:
                        break
                    cell = waiting.popleft()
                    if cell.folder.is_finished():  # the other process has trained it
                        progress.advance(total)
                    elif _is_free(cell):
                        running[cell] = _Job(cell, environment)
                        tasks[cell] = progress.add_task(cell.title, total=cell.config.train.steps)
                    else:
                        waiting.append(cell)
                        if cell not in elsewhere:
                            say(f"{cell.folder}: another process is training it; waiting until it ends")
                        elsewhere.add(cell)
                time.sleep(_POLL_SECONDS)
                for cell, job in list(running.items()):
                    progress.update(tasks[cell], completed=cell.folder.steps_done())
                    if job.process.poll() is None:
                        continue
                    del running[cell]
                    progress.remove_task(tasks.pop(cell))
                    progress.advance(total)
                    job.report(failed)
        finally:  # on an interrupt, the runs save their step and stop too; the next start resumes them
            for job in running.values():
                job.process.terminate()
            for job in running.values():
                job.process.wait()
    return failed


class _Job:
    """A run in progress: its process, and the offset in train.log at which it began to write."""

    def __init__(self, cell: Cell, environment: dict[str, str]) -> None:
        cell.make_folder()
        self.cell, self.log = cell, cell.folder.log
        with atomic_files.written(self.log), atomic_files.Appender(self.log) as log:
            self.begin = os.fstat(log.descriptor).st_size
            command = [sys.executable, "-m", "tmkt", "train", *cell.arguments]
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log.descriptor, stderr=subprocess.STDOUT
            )

    def report(self, failed: dict[Cell, str]) -> None:
        """Report how it ended, and record in `failed` why it failed."""
        test = self.cell.folder.test_score()
        if self.process.returncode == 0 and test is not None:
            say(f"{self.cell.title}: test accuracy {test['accuracy']:.3f}")
            return
        with self.log.open("rb") as log:
            log.seek(self.begin)
            lines = log.read().decode(errors="replace").strip().splitlines()
        failed[self.cell] = self._reason(lines[-1] if lines else "nothing")
        say(f"failed: {self.cell.title}: {failed[self.cell]}  (all of it: {self.log})")

    def _reason(self, last: str) -> str:
        """Return why it failed, from its exit status and its last line, which is the reason if the status is 2."""
        status = self.process.returncode
        if status == 2:
            return last
        if status == UNHEARD:
            return f"{self.log} could not be written; free space on that disk, then give the same command again"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"{how}; the last line that it printed: {last}"


def _is_free(cell: Cell) -> bool:
    """Return whether no process trains in the folder. After a killed compare, a run may be saving its last step."""
    cell.make_folder()
    free = cell.folder.lock.acquire()
    cell.folder.lock.release()
    return free
