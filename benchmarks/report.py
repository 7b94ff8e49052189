"""Writes the README's table from the committed rows: `python -m benchmarks.report` (--check: fail if it is stale)."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def tables() -> str:
    """One markdown table for each results file."""
    parts = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        parts.append(table(rows))
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    where = f"{first['device']}, {first['threads']} thread, torch {first['torch']}, {first['simd']}, {first['date']}"
    lines = [
        f"{where}, commit {first['commit']}. Medians of one run; `make bench` repeats it.",
        "",
        "| operator | shape | dtype | ours, ms | yardstick | ours / yardstick | torch.compile / ours | plain / ours |",
        "| --- | --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    cases: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        cases.setdefault((f"{row['op']} {row['case']}", shape, row["dtype"]), {})[row["contestant"]] = row
    for key, contestants in cases.items():
        for name in ("tmkt native", "tmkt triton"):
            if name in contestants:
                ours = contestants[name]
                rivals = [
                    f"{contestants[rival]['median_ms'] / ours['median_ms']:.1f}" if rival in contestants else ""
                    for rival in ("torch.compile(loop)", "plain loop" if "plain loop" in contestants else "torch.where")
                ]
                cells = [*key, f"{ours['median_ms']:.2f}", ours["yardstick"], f"{ours['ratio']:.2f}", *rivals]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    fresh = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(0 if fresh == text else "README.md: the benchmark table is stale; run python -m benchmarks.report")
    readme.write_text(fresh)


if __name__ == "__main__":
    main()
