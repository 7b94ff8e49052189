"""The tables of README.md and docs/benchmarks.md, made from rows.

`python -m benchmarks.tables ROWS` prints the short table of one machine.

A value from several runs is shown as the range from the lowest to the highest.
"""

import argparse
from pathlib import Path

from benchmarks.rows import Key, Machine, Measured, read, span

NAMED = ("torch.compile", "SpikingJelly")  # rivals with a column of their own


FRONT = {
    ("lif", "forward + backward"): "LIF",
    ("bn_lif", "forward + backward"): "batch norm + LIF",
    ("bn_lif", "forward + backward, pooled"): "batch norm + LIF + 2x2 pooling",
    ("sew_resnet18", "training step"): "SEW-ResNet18, one training step after `accelerate`",
    ("spikformer", "training step"): "Spikformer, one training step after `accelerate`",
    ("vgg_snn", "training step"): "VGG-SNN of our layers, one training step",
}


def front_table(machine: Machine) -> str:
    """Front page: speed relative to rivals, in fp32 and bf16, and their memory over ours.

    Of several runs, the one that is worst for us. A layer's memory is what it keeps for backward, a network's its peak.
    """
    lines = [
        f"| {machine.device} | faster than torch.compile, fp32 | bf16 | faster than SpikingJelly, fp32 | bf16 "
        "| less memory than SpikingJelly, fp32 | bf16 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    cases: dict[tuple[str, str], dict[str, Measured]] = {}
    for key, measured in machine.cases().items():
        cases.setdefault(key[:2], {}).setdefault(key.dtype, measured)
    for case, name in FRONT.items():
        by_dtype = [cases.get(case, {}).get(dtype) for dtype in ("float32", "bfloat16")]
        field = "peak_mb" if case[1] == "training step" else "saved_mb"
        cells = [least(m, "torch.compile", "times_ours") for m in by_dtype]
        cells += [least(m, fastest_way(m), "times_ours") for m in by_dtype]
        cells += [memory_over_ours(m, fastest_way(m), field) for m in by_dtype]
        if any(cells):
            lines.append(row([name, *(f"{cell:.1f}x" if cell else "" for cell in cells)]))
    return "\n".join(lines)


def before_and_after(machine: Machine) -> str:
    """SEW-ResNet18 as in SpikingJelly, in its fastest way, and after `accelerate`."""
    lines = []
    for key, measured in machine.cases().items():
        if key[:2] == ("sew_resnet18", "training step"):
            cells = [
                f"{span(measured.values(name, field), 0)} {unit}"
                for field, unit in (("median_ms", "ms"), ("peak_mb", "MB"))
                for name in (fastest_way(measured), measured.fastest)
            ]
            steps, batch, _, height, width = key.shape
            name = f"SEW-ResNet18, T = {steps}, {batch} images of {width}x{height}, {key.dtype}"
            lines.append(row([name, *cells]))
    if not lines:
        return ""
    head = [
        f"one training step on {machine.device}",
        "SpikingJelly",
        "with our line",
        "its peak memory",
        "with our line",
    ]
    return "\n".join([row(head), "| --- | ---: | ---: | ---: | ---: |", *lines])


def front_notes(machine: Machine) -> str:
    """Notes to a GPU's table: how near the limit, and where a rival is as fast."""
    cases = {key[:2]: measured for key, measured in reversed(machine.cases().items()) if key.dtype == "float32"}
    lif, bn_lif = (cases[op, "forward + backward"] for op in ("lif", "bn_lif"))
    forward = least(cases["lif", "forward"], "torch.compile", "times_ours")
    return (
        f"- **Near the limit.** LIF reaches {share_of_copy(lif)} of the bandwidth of a copy, in fp32. Batch norm + LIF "
        f"reaches {share_of_copy(bn_lif)}.\n"
        f"- **Forward alone.** `torch.compile` takes {forward:.2f} times as long as LIF."
    )


def fastest_way(measured: Measured | None) -> str:
    """Return SpikingJelly's neuron, or its precision API, which half types need to be fast."""
    ways = [name for name in measured.contestants if name.startswith("SpikingJelly")] if measured else []
    return min(ways, key=lambda name: min(measured.values(name, "median_ms")), default="")  # type: ignore[union-attr]


def least(measured: Measured | None, contestant: str, field: str) -> float | None:
    return min(measured.values(contestant, field), default=None) if measured else None


def memory_over_ours(measured: Measured | None, contestant: str, field: str) -> float | None:
    """Return the least ratio among runs, each within one run, because memory differs between versions of ours."""
    if measured is None:
        return None
    pairs = (
        (rows.get(contestant, {}).get(field), rows.get(measured.fastest, {}).get(field))
        for rows in measured.by_run.values()
    )
    return min((theirs / ours for theirs, ours in pairs if theirs is not None and ours), default=None)


def short_table(machine: Machine) -> str:
    """Return a table of the first shape of each operator, with rivals as multiples of our time."""
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
    """Return the time of our fastest, and its share of the bandwidth."""
    return [span(measured.values(measured.fastest, "median_ms"), 2), share_of_copy(measured)]


def share_of_copy(measured: Measured) -> str:
    shares = [100 * share for share in measured.values(measured.fastest, "share_of_copy")]
    return f"{span(shares, 0)} %" if shares else ""


def targets(measured: Measured) -> str:
    return "; ".join(
        f"{v.target}: " + ("not measured" if v.found is None else f"{v.found:.2f}" + ("" if v.met else ", **missed**"))
        for v in measured.verdicts()
    )


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def full_table(key: Key, measured: Measured) -> str:
    """Return a table of all contestants of one case."""
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
    """Return every target that was missed."""
    lines = [
        f"- {machine.name}: {key.title} {list(key.shape)} {key.dtype}: {verdict.target}; {verdict.found:.2f}"
        for machine in found
        for key, measured in machine.cases().items()
        for verdict in measured.verdicts()
        if verdict.found is not None and not verdict.met
    ]
    return "\n".join(lines) or "None."


def side_by_side(heading: str, found: dict[str, list[list[float]]], columns: tuple[str, str]) -> list[str]:
    """Return a table of two times per case, and the second over the first; empty without such cases."""
    lines = [
        row([title, span(first, 3), span(second, 3), span([b / a for a, b in zip(first, second, strict=True)], 2)])
        for title, (first, second) in found.items()
    ]
    head = [row(["case", *(f"{name}, ms" for name in columns), "ratio"]), "| --- | ---: | ---: | ---: |"]
    return [heading, "\n".join([*head, *lines])] if lines else []


def backends(machine: Machine) -> list[str]:
    """Compare CUDA and Triton, case by case, because `auto` should take the faster."""
    pair = "tmkt native", "tmkt triton"
    found = {
        f"{key.title} {list(key.shape)} {key.dtype}": [measured.values(name, "median_ms") for name in pair]
        for key, measured in machine.cases().items()
        if set(pair) <= set(measured.ours)
    }
    return side_by_side("**CUDA and Triton**", found, pair)


def layouts(machine: Machine) -> list[str]:
    """Compare contiguous and channels_last."""
    cases = {(key.op, key.case, key.dtype): measured for key, measured in machine.cases("layout").items()}
    found = {
        f"{op} {name} {dtype}": [
            cases[op, n, dtype].values(cases[op, n, dtype].ours[0], "median_ms")
            for n in (name, f"{name}, channels_last")
        ]
        for op, name, dtype in cases
        if (op, f"{name}, channels_last", dtype) in cases
    }
    return side_by_side("**Memory layout**", found, ("contiguous", "channels_last"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("rows", type=Path, help="a JSONL file of benchmarks.run")
    machine = read(parser.parse_args().rows)
    print(f"{machine.heading}\n\n{short_table(machine)}")


if __name__ == "__main__":
    main()
