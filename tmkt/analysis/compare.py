"""`tmkt compare`: make a grid of runs, then say what they show."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from ..atomic_files import make_folder, write_text
from ..errors import Interrupted, UserError
from ..progress import say
from ..training.lock import FolderLock
from .grid import Cell, make_grid, run_grid
from .report import write_report
from .statistics import bootstrap, holm, outcome_table


def compare(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    per_class: Sequence[int] = (),
    out: str | Path = "runs/compare",
    jobs: int = 1,
) -> dict[str, Any]:
    """Make the runs that are missing, write results.json, report.md and report.html to `out`, return the results.

    Results are lists of flat records: `runs` (every cell, `error` where it failed), `means` (accuracy of a method at a
    number of recordings, over seeds) and `differences` (pairs of methods, on the seeds that both have).
    """
    cells = make_grid(config, overrides, methods=methods, seeds=seeds, per_class=per_class, out=out)
    lock = FolderLock(make_folder(Path(out)))
    try:
        lock.wait(f"{out}: another tmkt compare is at work in it; waiting until it ends")
        failed = run_grid(cells, jobs)
        results = collect(cells, failed)
        write_text(Path(out) / "results.json", json.dumps(results, indent=1) + "\n")
        report = write_report(Path(out), cells, results)
    except KeyboardInterrupt:
        text = (
            "interrupted; run the same command again: finished runs are kept, the others resume from their checkpoints"
        )
        raise Interrupted(text) from None
    finally:
        lock.release()
    say(f"report: {report}")
    return results


def collect(cells: Sequence[Cell], failed: dict[Cell, str]) -> dict[str, Any]:
    """The results of a grid, from the files of its finished runs."""
    runs = []
    correct: dict[tuple[str, int], dict[int, dict[str, float]]] = {}  # of a method: seed -> recording -> 0 or 1
    for cell in cells:
        place = {"method": cell.method, "per_class": cell.per_class, "seed": cell.seed, "folder": str(cell.folder)}
        correct.setdefault((cell.method, cell.per_class), {})
        try:
            test, answers = cell.folder.test_score(), cell.folder.predictions()
        except UserError as error:
            failed.setdefault(cell, str(error))
        if cell in failed or test is None:
            runs.append({**place, "error": failed.get(cell, "not finished")})
            continue
        runs.append({**place, **{key: test[key] for key in ("accuracy", "correct", "total", "step", "seconds")}})
        correct[cell.method, cell.per_class][cell.seed] = {
            row["name"]: float(row["label"] == row["predicted"]) for row in answers
        }
    return {"runs": runs, "means": _means(correct), "differences": _differences(correct)}


def _means(correct: dict[tuple[str, int], dict[int, dict[str, float]]]) -> list[dict[str, Any]]:
    means = []
    for (method, count), by_seed in correct.items():
        if by_seed:
            interval = bootstrap(outcome_table(list(by_seed.values())))
            place = {"method": method, "per_class": count, "seeds": len(by_seed)}
            means.append({**place, "accuracy": interval.mean, "low": interval.low, "high": interval.high})
    return means


def _differences(correct: dict[tuple[str, int], dict[int, dict[str, float]]]) -> list[dict[str, Any]]:
    """Every pair of methods at every number of recordings; p values corrected for the number of all these pairs."""
    differences: list[dict[str, Any]] = []
    for (first, count), (second, other) in combinations(correct, 2):
        a, b = correct[first, count], correct[second, other]
        # The runs of a seed test the same recordings, unless a method of the grid has data settings of its own.
        pairs = {s: {n: a[s][n] - b[s][n] for n in a[s].keys() & b[s].keys()} for s in sorted(a.keys() & b.keys())}
        seeds = [s for s, recordings in pairs.items() if recordings]
        if count != other or not seeds:
            continue
        interval = bootstrap(outcome_table([pairs[s] for s in seeds]))
        place = {"per_class": count, "first": first, "second": second, "seeds": len(seeds)}
        figures = {"difference": interval.mean, "low": interval.low, "high": interval.high, "p": interval.p}
        differences.append({**place, **figures})
    for record, corrected in zip(differences, holm([d["p"] for d in differences]), strict=True):
        record["p_holm"] = corrected
    return differences


def results_table(results: dict[str, Any]) -> Table:
    """Mean accuracy of each method at each number of recordings with its interval, for the terminal."""
    counts = sorted({record["per_class"] for record in results["means"]})
    table = Table(title="test accuracy, mean over seeds")
    table.add_column("method")
    for count in counts:
        table.add_column(f"{count} per class", justify="right")
    cells = {(r["method"], r["per_class"]): r for r in results["means"]}
    for method in dict.fromkeys(record["method"] for record in results["means"]):
        shown = [cells.get((method, count)) for count in counts]
        table.add_row(
            method, *(f"{r['accuracy']:.3f} ({r['low']:.3f} to {r['high']:.3f})" if r else "-" for r in shown)
        )
    return table
