"""Makes all tables and charts of README.md and docs/benchmarks.md from the committed rows: `python -m
benchmarks.report` (--check: fail if one is stale).
"""

import argparse
import sys
from pathlib import Path

from benchmarks import charts
from benchmarks.rows import Machine, machines
from benchmarks.tables import (
    backends,
    before_and_after,
    front_notes,
    front_table,
    full_table,
    layouts,
    missed,
    short_table,
)

ROOT = Path(__file__).parents[1]
README, DOCS, IMAGES = Path("README.md"), Path("docs/benchmarks.md"), Path("docs/images")
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"


def pictures(machine: Machine, folder: str) -> list[str]:
    """Return Markdown of the machine's charts for which there are rows."""
    return [
        f"![{chart.title}]({folder}/{chart.file_name(machine)})" for chart in charts.CHARTS if chart.has_rows(machine)
    ]


def headline(found: list[Machine]) -> str:
    """Return the first table for users of other libraries: a network before and after."""
    parts = [before_and_after(machine) for machine in found if machine.on_gpu]
    return "\n\n".join(filter(None, parts)) or "No rows of a GPU yet: `make gpu`."


def readme_part(found: list[Machine]) -> str:
    """Return the tables of GPUs, and of one thread of the CPU."""
    gpus, cpus = [m for m in found if m.on_gpu], [m for m in found if not m.on_gpu][:1]
    parts = [part for m in gpus for part in (front_table(m), front_notes(m))] + [front_table(m) for m in cpus]
    return "\n\n".join(parts) or "No rows yet: `make bench`."


def docs_part(found: list[Machine]) -> str:
    """Return each machine's charts and tables, then the missed targets."""
    parts = []
    for machine in found:
        parts += [f"## {machine.device}", machine.heading + ".", *pictures(machine, "images")]
        parts += [f"**In short**: rivals in multiples of our time.\n\n{short_table(machine)}"]
        parts += [*backends(machine), *layouts(machine)]
        parts += [full_table(key, measured) for key, measured in machine.cases().items()]
    return "\n\n".join([*parts, "## Targets missed", missed(found)])


PARTS = {README: {"headline": headline, "benchmarks": readme_part}, DOCS: {"benchmarks": docs_part}}


def rewritten(path: Path, parts: dict[str, str]) -> str:
    """Return the page with these parts between their marks."""
    text = path.read_text()
    for name, part in parts.items():
        begin, end = BEGIN.format(name), END.format(name)
        text = f"{text.split(begin)[0]}{begin}\n{part}\n{end}{text.split(end)[1]}"
    return text


def main(root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a table or chart is stale")
    check = parser.parse_args().check
    found = machines(root / "benchmarks" / "results")
    fresh = {
        path: rewritten(root / path, {name: part(found) for name, part in parts.items()})
        for path, parts in PARTS.items()
    }
    drawn = [
        (chart, machine, root / IMAGES / chart.file_name(machine))
        for machine in found
        for chart in charts.CHARTS
        if chart.has_rows(machine)
    ]
    if check:
        stale = [str(path) for path, text in fresh.items() if (root / path).read_text() != text]
        stale += [path.name for _, machine, path in drawn if charts.digest_of(path) != machine.digest]
        kept = {path for _, _, path in drawn}
        stale += [f"{path.name} (of no rows)" for path in (root / IMAGES).glob(charts.PATTERN) if path not in kept]
        sys.exit(f"stale: {', '.join(stale)}; run python -m benchmarks.report" if stale else 0)
    for path, text in fresh.items():
        (root / path).write_text(text)
    for path in (root / IMAGES).glob(charts.PATTERN):
        path.unlink()
    for chart, machine, path in drawn:
        chart.draw(machine, path)


if __name__ == "__main__":
    main()
