"""Writes the README's table from the committed rows: `python -m benchmarks.report` (--check: fail if it is stale).

Several files of one machine are several runs: medians of the runs are shown from the lowest to the highest.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
RIVALS = ("torch.compile(loop)", "spikingjelly 2.0.0", "plain loop", "torch.where")
HEADINGS = (
    "operator",
    "shape",
    "dtype",
    "ours, ms",
    "ours / yardstick",
    "torch.compile / ours",
    "SpikingJelly / ours",
    "plain / ours",
)

Run = dict[tuple[str, str, str], dict[str, dict[str, Any]]]


def read_runs() -> dict[tuple[str, ...], list[Run]]:
    """Machine and versions -> its runs; a run maps a case to its rows by contestant."""
    machines: dict[tuple[str, ...], list[Run]] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        run: Run = {}
        for row in (json.loads(line) for line in path.read_text().splitlines()):
            case = f"{row['op']} {row['case']}", "x".join(map(str, row["shape"])), row["dtype"]
            run.setdefault(case, {})[row["contestant"]] = row
            machine = tuple(str(row[key]) for key in ("device", "threads", "torch", "simd", "date", "commit"))
        machines.setdefault(machine, []).append(run)
    return machines


def span(values: list[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def table(machine: tuple[str, ...], runs: list[Run]) -> str:
    device, threads, torch, simd, date, commit = machine
    lines = [
        f"{device}, {threads} thread(s), torch {torch}, {simd}, {date}, commit {commit}; medians of {len(runs)} runs. "
        "The yardstick is `copy_` of the same bytes (and `add`, where there is a backward; for bn_lif, what reads and "
        "writes its 9 values for each one).",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in runs[0]:
        for ours in ("tmkt native", "tmkt triton"):
            rows = [run[case] for run in runs if ours in run[case]]
            if not rows:
                continue
            speedups = [
                span([r[rival]["median_ms"] / r[ours]["median_ms"] for r in rows], 1) if rival in rows[0] else ""
                for rival in RIVALS
            ]
            cells = [span([r[ours]["median_ms"] for r in rows], 1), span([r[ours]["ratio"] for r in rows], 2)]
            lines.append("| " + " | ".join([*case, *cells, *speedups[:2], speedups[2] or speedups[3]]) + " |")
    return "\n".join(lines)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    tables = "\n\n".join(table(machine, runs) for machine, runs in read_runs().items())
    fresh = f"{before}{BEGIN}\n{tables}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(0 if fresh == text else "README.md: the benchmark table is stale; run python -m benchmarks.report")
    readme.write_text(fresh)


if __name__ == "__main__":
    main()
