"""Profiles of each kernel by ncu: `python -m benchmarks.kernels ncu BACKEND` makes them, `... table CSV` shows them.

A scene is one warm forward and backward pass, with torch's kernels in it. It begins with a launch of its own,
`torch.cuda._sleep`, by which `table` separates scenes, because Triton's kernels have the same name for all types. ncu
writes at the end of the program and loses everything if it is killed, so no scene begins after `--seconds`.
"""

import argparse
import csv
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import tmkt_kernels as tk
from benchmarks.case import Shape
from benchmarks.cases import bn_lif, lif, mixup, scaling

METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_bytes.sum",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
)
SECTIONS = ("LaunchStats", "Occupancy", "WarpStateStats")  # registers and limits; reasons for which warps wait
NCU = [
    "ncu",
    "--csv",
    "--page",
    "raw",
    "--print-units",
    "base",
    "--clock-control",
    "none",
    "--profile-from-start",
    "off",
]
NCU += [word for section in SECTIONS for word in ("--section", section)] + ["--metrics", ",".join(METRICS)]
MARK = "spin_kernel"  # kernel of torch.cuda._sleep
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
HEADING = "# backend: "  # comes before the rows of one run of ncu

Call = Callable[[], Any]


SHAPE = lif.CASES[0].shape_on("cuda")
FEW_STEPS, MANY_STEPS, SMALL_PLANES = (4, 512, 128, 16, 16), (32, 128, 64, 16, 16), (10, 1200, 512, 6, 6)


def lif_scene(dtype: torch.dtype, backend: str, device: str, small: bool, shape: Shape = SHAPE) -> Call:
    made = lif.sequence(device, dtype, of_size(shape, small))
    return lambda: lif.forward_backward(lambda x: tk.lif(x, backend=backend)[0], made)


def bn_lif_scene(
    dtype: torch.dtype,
    backend: str,
    device: str,
    small: bool,
    shape: Shape = SHAPE,
    pool: int = 1,
    channels_last: bool = False,
) -> Call:
    shape = of_size(shape, small)
    made = (
        scaling.channels_last(device, dtype, shape) if channels_last else bn_lif.inputs(pool == 2)(device, dtype, shape)
    )
    leaves = [torch.full((shape[2],), value, device=device, requires_grad=True) for value in (1.0, 0.0)]
    layer = lambda x: tk.bn_lif(x, *leaves, pool=pool, backend=backend)[0]  # noqa: E731
    return lambda: lif.forward_backward(layer, made, leaves)


def mixup_scene(dtype: torch.dtype, backend: str, device: str, small: bool) -> Call:
    made = mixup.inputs(None, None)(device, dtype, mixup.CASES[0].shape_on("cuda", small))
    sources = made.static.requires_grad_(), made.events.requires_grad_()
    return lambda: torch.autograd.grad(mixup.mix(made, backend), sources, made.data)


def of_size(shape: Shape, small: bool) -> Shape:
    return tuple(min(n, 6) for n in shape) if small else shape


OPERATORS: dict[str, Callable[[torch.dtype, str, str, bool], Call]] = {
    "lif": lif_scene,
    "bn_lif": bn_lif_scene,
    "bn_lif, pooled": functools.partial(bn_lif_scene, pool=2),
    "mixup": mixup_scene,
    "bn_lif, T = 4": functools.partial(bn_lif_scene, shape=FEW_STEPS),
    "bn_lif, channels_last": functools.partial(bn_lif_scene, channels_last=True),
    "bn_lif, planes of 6x6": functools.partial(bn_lif_scene, shape=SMALL_PLANES),
    "lif, T = 32": functools.partial(lif_scene, shape=MANY_STEPS),
}
SCENES = [(op, dtype) for dtype in (torch.float32, torch.bfloat16) for op in OPERATORS]


def run(arguments: argparse.Namespace) -> None:
    """Run the program that ncu profiles. Its own output goes to stderr, because stdout is for the rows."""
    on_gpu, begin = arguments.device == "cuda", time.perf_counter()
    for op, dtype in SCENES:
        name, spent = f"{op} {str(dtype)[6:]}, {arguments.backend}", time.perf_counter() - begin
        if spent > arguments.seconds:
            print(f"left out, {arguments.seconds} s are over: {name}", file=sys.stderr)
            continue
        call = OPERATORS[op](dtype, arguments.backend, arguments.device, arguments.small)
        call()  # compiled and warm
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            torch.cuda._sleep(1)
        call()
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()
        print(f"{spent:.0f} s: {name}", file=sys.stderr)


def profile(arguments: argparse.Namespace) -> None:
    program = [sys.executable, "-m", "benchmarks.kernels", "run", arguments.backend, "--device", arguments.device]
    program += ["--seconds", str(arguments.seconds), *(["--small"] if arguments.small else [])]
    print(HEADING + arguments.backend, flush=True)
    sys.exit(subprocess.run([*(NCU if arguments.device == "cuda" else []), *program], check=False).returncode)


class Launch(NamedTuple):
    """A kernel of a scene, with its values by metric, in base units: bytes, nanoseconds."""

    scene: str
    kernel: str
    values: dict[str, float]

    def value(self, *metrics: str) -> float:
        return sum(self.values.get(metric, float("nan")) for metric in metrics)

    @property
    def stalls(self) -> list[tuple[str, float]]:
        """Return the reasons why warps waited, most common first, in warps of those that are active at an issue."""
        found = [(match[1], value) for metric, value in self.values.items() if (match := STALL.fullmatch(metric))]
        waits = [(why, value) for why, value in found if why != "selected" and not why.endswith("_not_issued")]
        return sorted(waits, key=lambda reason: -reason[1])


def short_name(kernel: str) -> str:
    """void tmkt::(anonymous namespace)::forward_kernel<float, (int)4>(Args) -> forward_kernel<float, 4>"""
    plain = re.sub(r"(\w+|\(anonymous namespace\)|<unnamed>)::", "", kernel).removeprefix("void ")
    return re.sub(r"\([a-z ]+\)(?=[-\d])", "", plain, flags=re.IGNORECASE).split("(")[0].strip()


def read(lines: Iterable[str]) -> list[Launch]:
    """Return the launches in ncu's raw pages, one run after another. Its messages are skipped.

    Raises:
        ValueError: a launch before the first heading or the first mark, so the file is not from this program.
    """
    launches, header, backend, scene = [], [], "", -1
    for line in lines:
        if line.startswith(HEADING):
            backend, scene = line.removeprefix(HEADING).strip(), -1
        if not line.startswith('"'):
            continue
        cells = next(csv.reader([line]))
        if cells[0] == "ID":
            header = cells
        elif cells[0]:  # otherwise the line of units
            row = dict(zip(header, cells, strict=True))
            if MARK in row["Kernel Name"]:
                scene += 1
                continue
            if not backend or scene < 0:
                raise ValueError(f"expected {HEADING!r} and a launch of {MARK} first, got {row['Kernel Name']!r}")
            op, dtype = SCENES[scene]
            name = f"{op} {str(dtype)[6:]}, {backend}"
            launches.append(Launch(name, short_name(row["Kernel Name"]), numbers(row)))
    return launches


def numbers(row: dict[str, str]) -> dict[str, float]:
    plain = {metric: value.replace(",", "") for metric, value in row.items()}
    number = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
    return {metric: float(value) for metric, value in plain.items() if number.fullmatch(value)}


def table(launches: list[Launch]) -> str:
    """Return a row for each launch that moved at least 1 MB or took 10 microseconds; the others are counted."""
    head = ("scene", "kernel", "ms", "read, MB", "written, MB", "GB/s", "of peak", "L2, MB", "SM", "10^6 instructions")
    head = (*head, "issue slots busy", "registers", "warps active", "warps wait for")
    lines = [f"| {' | '.join(head)} |", f"| --- | --- |{' ---: |' * (len(head) - 3)} --- |"]
    short = [launch for launch in launches if launch.value("gpu__time_duration.sum") < 10e3]
    for launch in launches:
        if launch in short:
            continue
        moved = launch.value("dram__bytes_read.sum", "dram__bytes_write.sum")
        took = launch.value("gpu__time_duration.sum")
        cells = [
            launch.scene,
            f"`{launch.kernel[:60]}`",
            f"{took / 1e6:.3f}",
            f"{launch.value('dram__bytes_read.sum') / 1e6:.1f}",
            f"{launch.value('dram__bytes_write.sum') / 1e6:.1f}",
            f"{moved / took:.0f}",
            f"{launch.value('dram__throughput.avg.pct_of_peak_sustained_elapsed'):.0f} %",
            f"{launch.value('lts__t_bytes.sum') / 1e6:.1f}",
            f"{launch.value('sm__throughput.avg.pct_of_peak_sustained_elapsed'):.0f} %",
            f"{launch.value('smsp__inst_executed.sum') / 1e6:.1f}",
            f"{launch.value('smsp__issue_active.avg.pct_of_peak_sustained_active'):.0f} %",
            f"{launch.value('launch__registers_per_thread'):.0f}",
            f"{launch.value('sm__warps_active.avg.pct_of_peak_sustained_active'):.0f} %",
            ", ".join(f"{why} {value:.1f}" for why, value in launch.stalls[:2]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    took = sum(launch.value("gpu__time_duration.sum") for launch in short)
    return "\n".join([*lines, "", f"Left out: {len(short)} launches under 0.01 ms, {took / 1e6:.3f} ms in all."])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("ncu", profile), ("run", run)):
        command = commands.add_parser(name)
        command.add_argument("backend", choices=("native", "triton"))
        command.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: a dry run, without ncu")
        command.add_argument("--small", action="store_true", help="tiny shapes: shows that everything runs")
        command.add_argument("--seconds", type=int, default=60, help="after which no scene is begun")
        command.set_defaults(function=function)
    command = commands.add_parser("table")
    command.add_argument("csv", type=Path, nargs="+", help="what `ncu` wrote to stdout")
    command.set_defaults(function=lambda arguments: print(table(read(all_lines(arguments.csv)))))
    arguments = parser.parse_args()
    arguments.function(arguments)


def all_lines(paths: list[Path]) -> list[str]:
    return [line for path in paths for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
