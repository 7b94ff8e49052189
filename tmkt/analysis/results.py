"""Results of a grid of runs: the score of each, means over seeds, and differences between methods."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from ..errors import UserError
from .grid import Cell
from .statistics import bootstrap, holm, outcome_table

Outcomes = Mapping[tuple[str, int], Mapping[int, Mapping[str, float]]]
"""(method, recordings per class) -> seed -> test recording -> 1 if classified correctly, else 0."""


@dataclass(frozen=True)
class Run:
    """A cell of the grid with its test score, or the reason why it has none."""

    method: str
    per_class: int
    seed: int
    folder: str
    accuracy: float | None = None
    correct: int | None = None
    total: int | None = None
    step: int | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Mean:
    """Test accuracy of a method at a number of recordings, over `seeds` seeds, with its 95 % interval."""

    method: str
    per_class: int
    seeds: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of the first method minus that of the second, with its 95 % interval.

    seeds: number of seeds that both methods have; p_holm: p corrected for the number of all differences.
    """

    per_class: int
    first: str
    second: str
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Results:
    """All results of `tmkt compare`."""

    runs: list[Run]
    means: list[Mean]
    differences: list[Difference]

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.error is not None]

    def record(self) -> dict[str, list[dict[str, Any]]]:
        """Return flat records, as in results.json; a run has its score or its error."""
        return {
            "runs": [{key: value for key, value in asdict(run).items() if value is not None} for run in self.runs],
            "means": [asdict(mean) for mean in self.means],
            "differences": [asdict(difference) for difference in self.differences],
        }


def collect(cells: Sequence[Cell], failed: Mapping[Cell, str]) -> Results:
    """Collect the results of a grid from the files of its finished runs; `failed`: why others failed."""
    runs = []
    correct: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for cell in cells:
        place = cell.method, cell.per_class, cell.seed, str(cell.folder)
        by_seed = correct.setdefault((cell.method, cell.per_class), {})
        test, error = None, failed.get(cell)
        try:
            test, predictions = cell.folder.test_score(), cell.folder.predictions()
        except UserError as damage:
            error = error or str(damage)
        if error or test is None:
            runs.append(Run(*place, error=error or "not finished"))
            continue
        runs.append(Run(*place, *(test[key] for key in ("accuracy", "correct", "total", "step", "seconds"))))
        by_seed[cell.seed] = {row["name"]: float(row["label"] == row["predicted"]) for row in predictions}
    return Results(runs, list(_means(correct)), _differences(correct))


def _means(outcomes: Outcomes) -> Iterable[Mean]:
    for (method, count), by_seed in outcomes.items():
        if by_seed:
            interval = bootstrap(outcome_table(list(by_seed.values())))
            yield Mean(method, count, len(by_seed), interval.mean, interval.low, interval.high)


def _differences(outcomes: Outcomes) -> list[Difference]:
    """Compare every pair of methods at every number of recordings."""
    intervals = {}
    for (first, count), (second, other) in combinations(outcomes, 2):
        a, b = outcomes[first, count], outcomes[second, other]
        # The runs of a seed test the same recordings, unless a method of the grid has its own data settings.
        pairs = {s: {n: a[s][n] - b[s][n] for n in a[s].keys() & b[s].keys()} for s in sorted(a.keys() & b.keys())}
        tables = [recordings for recordings in pairs.values() if recordings]
        if count == other and tables:
            intervals[count, first, second, len(tables)] = bootstrap(outcome_table(tables))
    corrected = holm([interval.p for interval in intervals.values()])
    return [
        Difference(*place, *interval, p_holm=p)
        for (place, interval), p in zip(intervals.items(), corrected, strict=True)
    ]
