"""The committed rows, by machine and case, from which tables and charts are made."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.case import Target, Verdict, judge

Row = dict[str, Any]


class Key(NamedTuple):
    """The fields that identify the rows of one case."""

    op: str
    case: str
    sweep: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def title(self) -> str:
        return f"{self.op} {self.case}"


@dataclass(frozen=True)
class Machine:
    """A results file: a device and, on the CPU, a number of threads. It may contain several runs."""

    path: Path
    rows: list[Row]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def digest(self) -> str:
        """Return a digest of the rows, which pictures carry so that a stale one is noticed."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def on_gpu(self) -> bool:
        return self.rows[0]["cuda"] is not None

    def facts(self, key: str) -> str:
        """Return the values of a field over all rows, in order of appearance."""
        return ", ".join(dict.fromkeys(str(row[key]) for row in self.rows))

    @property
    def device(self) -> str:
        """Return its name, on the CPU with the number of threads."""
        return self.facts("device") + ("" if self.on_gpu else f", {thread_count(int(self.facts('threads')))}")

    @property
    def heading(self) -> str:
        more = f"driver {self.facts('driver')}, CUDA {self.facts('cuda')}" if self.on_gpu else self.facts("simd")
        runs = len({row["run"] for row in self.rows})
        return (
            f"{self.device}, torch {self.facts('torch')}, Triton {self.facts('triton')}, {more}; {self.facts('date')}, "
            f"commit {self.facts('commit')}, {runs} run{'s' if runs > 1 else ''}"
        )

    def cases(self, sweep: str = "") -> dict[Key, "Measured"]:
        """Return all cases of a sweep, or for "" those without one, in the order of the rows."""
        found: dict[Key, Measured] = {}
        for row in self.rows:
            key = Key(row["op"], row["case"], row["sweep"], tuple(row["shape"]), row["dtype"])
            if key.sweep == sweep:
                found.setdefault(key, Measured({})).by_run.setdefault(row["run"], {})[row["contestant"]] = row
        return found


@dataclass(frozen=True)
class Measured:
    """The rows of one case: run -> contestant -> row."""

    by_run: dict[str, dict[str, Row]]

    @property
    def contestants(self) -> list[str]:
        return list(dict.fromkeys(name for rows in self.by_run.values() for name in rows))

    @property
    def yardstick(self) -> str:
        return next(iter(next(iter(self.by_run.values())).values()))["yardstick"]

    @property
    def ours(self) -> list[str]:
        return [name for name in self.contestants if name.startswith("tmkt")]

    @property
    def fastest(self) -> str:
        """Return our fastest contestant."""
        return min(self.ours, key=lambda name: self.values(name, "median_ms"))

    def values(self, contestant: str, field: str) -> list[float]:
        """Return one value for each run that has it."""
        found = [rows.get(contestant, {}).get(field) for rows in self.by_run.values()]
        return [value for value in found if value is not None]

    def verdicts(self) -> list[Verdict]:
        """Return the verdict on each target, from the worst run among those that measured it."""
        by_target: dict[Target, list[Verdict]] = {}
        for rows in self.by_run.values():
            targets = [Target(*target) for target in next(iter(rows.values())).get("targets", ())]
            for verdict in judge(targets, list(rows.values())):
                by_target.setdefault(verdict.target, []).append(verdict)
        return [max(found, key=lambda v: float("-inf") if v.found is None else v.found) for found in by_target.values()]


def thread_count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def read(path: Path) -> Machine:
    return Machine(path, [json.loads(line) for line in path.read_text().splitlines()])


def machines(folder: Path) -> list[Machine]:
    """Return all results files in a folder, GPUs first."""
    return sorted(map(read, sorted(folder.glob("*.jsonl"))), key=lambda machine: not machine.on_gpu)


def span(values: Iterable[float], digits: int) -> str:
    """Return the range from lowest to highest; empty for no values."""
    shown = [f"{value:.{digits}f}" for value in sorted(values)]
    return "" if not shown else shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"
