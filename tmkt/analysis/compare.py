"""`tmkt compare`: make a grid of runs, then report their differences."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..atomic_files import make_folder, write_text
from ..errors import Interrupted
from ..progress import say
from ..training.lock import FolderLock
from .grid import make_grid, run_grid
from .report import write_report
from .results import Results, collect


def compare(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    per_class: Sequence[int] = (),
    out: str | Path = "runs/compare",
    jobs: int = 1,
) -> Results:
    """Make the runs that are missing, write results.json, report.md and report.html to `out`; return the results."""
    cells = make_grid(config, overrides, methods=methods, seeds=seeds, per_class=per_class, out=out)
    lock = FolderLock(make_folder(Path(out)))
    try:
        lock.wait(f"{out}: another tmkt compare is at work in it; waiting until it ends")
        failed = run_grid(cells, jobs)
        results = collect(cells, failed)
        write_text(Path(out) / "results.json", json.dumps(results.record(), indent=1) + "\n")
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


def results_table(results: Results) -> Table:
    """Return each method's mean accuracy per number of recordings, with its interval, for the terminal."""
    counts = sorted({mean.per_class for mean in results.means})
    table = Table(title="test accuracy, mean over seeds")
    table.add_column("method")
    for count in counts:
        table.add_column(f"{count} per class", justify="right")
    means = {(mean.method, mean.per_class): mean for mean in results.means}
    for method in dict.fromkeys(mean.method for mean in results.means):
        row = [means.get((method, count)) for count in counts]
        table.add_row(method, *(f"{m.accuracy:.3f} ({m.low:.3f} to {m.high:.3f})" if m else "-" for m in row))
    return table
