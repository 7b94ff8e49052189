"""Makes the tables and charts of README.md and docs/benchmarks.md from the committed rows, and nothing else does:
`python -m benchmarks.report` (--check: fail if one is stale).

A value from several runs is shown from the lowest to the highest.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import charts
from benchmarks.rows import Key, Machine, Measured, machines, read, span

ROOT = Path(__file__).parents[1]
README, DOCS, IMAGES = Path("README.md"), Path("docs/benchmarks.md"), Path("docs/images")
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
NAMED = ("torch.compile", "SpikingJelly")  # rivals with a column of their own


def short_table(machine: Machine) -> str:
    """The first shape of each operator; rivals as so many times our time."""
    lines = [
        "| operator | shape | dtype | ours, ms | of `copy_` | torch.compile | SpikingJelly | best other | target |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    shown = set()
    for key, measured in machine.cases().items():
        if not measured.ours or (key.op, key.case, key.dtype) in shown or key.dtype == "float16":
            continue
        shown.add((key.op, key.case, key.dtype))
        others = [span(measured.values(name, "times_ours"), 1) for name in NAMED]
        rest = {
            name: measured.values(name, "times_ours")
            for name in measured.contestants
            if name not in NAMED and "tmkt" not in name and "copy_" not in name
        }
        best = min(rest, key=lambda name: rest[name], default=None)
        lines.append(row([*case_cells(key), *our_cells(measured), *others, rest_cell(best, rest), targets(measured)]))
    return "\n".join(lines)


def rest_cell(best: str | None, rest: dict[str, list[float]]) -> str:
    return f"{best} {span(rest[best], 1)}" if best else ""


def case_cells(key: Key) -> list[str]:
    return [key.title, "x".join(map(str, key.shape)), key.dtype]


def our_cells(measured: Measured) -> list[str]:
    """Time and share of bandwidth of our fastest."""
    ours = min(measured.ours, key=lambda name: measured.values(name, "median_ms"))
    shares = [100 * share for share in measured.values(ours, "share_of_copy")]
    return [span(measured.values(ours, "median_ms"), 2), f"{span(shares, 0)} %" if shares else ""]


def targets(measured: Measured) -> str:
    return "; ".join(
        f"{v.target}: " + ("not measured" if v.found is None else f"{v.found:.2f}" + ("" if v.met else ", **missed**"))
        for v in measured.verdicts()
    )


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def full_table(key: Key, measured: Measured) -> str:
    """All contestants of one case."""
    title = f"**{key.title}** {list(key.shape)} {key.dtype}"
    verdict = targets(measured)
    lines = [
        title + (f"; target {verdict}" if verdict else ""),
        "",
        f"| contestant | median, ms | quartiles, ms | x {measured.yardstick} | x ours | GB/s | of copy | peak, MB "
        "| kept, MB | first call, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in measured.contestants:
        rows = [run[name] for run in measured.by_run.values() if name in run]
        quartiles = f"{min(r['quartiles_ms'][0] for r in rows):.2f}, {max(r['quartiles_ms'][1] for r in rows):.2f}"
        numbers = [
            span(measured.values(name, field), digits)
            for field, digits in (
                ("ratio", 2),
                ("times_ours", 1),
                ("gb_per_s", 1),
                ("share_of_copy", 2),
                ("peak_mb", 1),
                ("saved_mb", 1),
                ("first_call_ms", 0),
            )
        ]
        version = rows[0].get("version")
        shown = f"{name} {version}" if version else name
        lines.append(row([shown, span(measured.values(name, "median_ms"), 2), quartiles, *numbers]))
    return "\n".join(lines)


def missed(found: list[Machine]) -> str:
    """Every target that was not reached."""
    lines = [
        f"- {machine.name}: {key.title} {list(key.shape)} {key.dtype}: {verdict.target}; {verdict.found:.2f}"
        for machine in found
        for key, measured in machine.cases().items()
        for verdict in measured.verdicts()
        if verdict.found is not None and not verdict.met
    ]
    return "\n".join(lines) or "None."


def pictures(machine: Machine, folder: str) -> list[str]:
    """Markdown of the machine's charts, those that its rows give."""
    return [
        f"![{chart.title}]({folder}/{chart.file_name(machine)})" for chart in charts.CHARTS if chart.has_rows(machine)
    ]


def readme_part(found: list[Machine]) -> str:
    """A GPU, if one was at hand, and one thread of the CPU."""
    shown = [m for m in found if m.on_gpu] + [m for m in found if not m.on_gpu][:1]
    parts = [f"{m.heading}. Rivals in multiples of our time.\n\n{short_table(m)}" for m in shown]
    return "\n\n".join([*parts, *pictures(shown[0], "docs/images")[:1]]) if shown else "No rows yet: `make bench`."


def docs_part(found: list[Machine]) -> str:
    parts = ["## Targets missed", missed(found)]
    for machine in found:
        parts += [f"## {machine.name}", machine.heading + ".", *pictures(machine, "images")]
        parts += [full_table(key, measured) for key, measured in machine.cases().items()]
    return "\n\n".join(parts)


def replaced(path: Path, part: str) -> str:
    text = path.read_text()
    return f"{text.split(BEGIN)[0]}{BEGIN}\n{part}\n{END}{text.split(END)[1]}"


def main(root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a table or chart is stale")
    parser.add_argument("--print", type=Path, metavar="ROWS", help="print the short table of these rows, write nothing")
    arguments = parser.parse_args()
    if arguments.print:
        shown = read(arguments.print)
        print(f"{shown.heading}\n\n{short_table(shown)}")
        return
    found = machines(root / "benchmarks" / "results")
    fresh = {path: replaced(root / path, part(found)) for path, part in ((README, readme_part), (DOCS, docs_part))}
    drawn = [
        (chart, machine, root / IMAGES / chart.file_name(machine))
        for machine in found
        for chart in charts.CHARTS
        if chart.has_rows(machine)
    ]
    if arguments.check:
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
