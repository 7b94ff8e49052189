"""The tables of README.md and docs/benchmarks.md, from rows; `python -m benchmarks.tables ROWS` prints the short one.

A value from several runs is shown from the lowest to the highest.
"""

import argparse
from pathlib import Path

from benchmarks.rows import Key, Machine, Measured, read, span

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


def side_by_side(heading: str, found: dict[str, list[list[float]]], columns: tuple[str, str]) -> list[str]:
    """A table of two times for each case, and the second over the first; nothing if there is no such case."""
    lines = [
        row([title, span(first, 3), span(second, 3), span([b / a for a, b in zip(first, second, strict=True)], 2)])
        for title, (first, second) in found.items()
    ]
    head = [row(["case", *(f"{name}, ms" for name in columns), "ratio"]), "| --- | ---: | ---: | ---: |"]
    return [heading, "\n".join([*head, *lines])] if lines else []


def backends(machine: Machine) -> list[str]:
    """CUDA and Triton, case by case: `auto` should take the faster."""
    pair = "tmkt native", "tmkt triton"
    found = {
        f"{key.title} {list(key.shape)} {key.dtype}": [measured.values(name, "median_ms") for name in pair]
        for key, measured in machine.cases().items()
        if set(pair) <= set(measured.ours)
    }
    return side_by_side("**CUDA and Triton**", found, pair)


def layouts(machine: Machine) -> list[str]:
    """Contiguous and channels_last."""
    cases = {(key.op, key.case): measured for key, measured in machine.cases("layout").items()}
    found = {
        f"{op} {name}": [
            cases[op, n].values(cases[op, n].ours[0], "median_ms") for n in (name, f"{name}, channels_last")
        ]
        for op, name in cases
        if (op, f"{name}, channels_last") in cases
    }
    return side_by_side("**Memory layout**", found, ("contiguous", "channels_last"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("rows", type=Path, help="a JSONL file of benchmarks.run")
    machine = read(parser.parse_args().rows)
    print(f"{machine.heading}\n\n{short_table(machine)}")


if __name__ == "__main__":
    main()
