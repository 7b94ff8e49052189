"""Times every case and writes a row per contestant: `python -m benchmarks.run [--device cpu|cuda] [--op lif]`.

Contestants take turns within one run, so that a busy machine slows all of them alike, and each turn begins with
an untimed call. On the CPU the C library is told to keep freed memory: given back to the system, it would be faulted in
again page by page, which costs more than any kernel here and falls on contestants at random. Each row
carries the median and quartiles, the ratio to the yardstick, and the machine, versions and commit.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, Case
from tmkt_kernels.__main__ import report

RESULTS = Path(__file__).parent / "results"
CALLS = 3  # timed calls a turn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="turns each contestant takes (default 9)")
    parser.add_argument("--op", help="only this operator")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="only this dtype")
    parser.add_argument("--small", action="store_true", help="tiny shapes: shows that everything runs, times nothing")
    parser.add_argument("--out", type=Path, help="JSONL file (default: benchmarks/results/<device name>.jsonl)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    keep_freed_memory()

    environment = describe(arguments.device, arguments.threads)
    console = Console(width=110)
    console.print(f"{environment['device']}, {arguments.threads} thread(s), torch {environment['torch']}")
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if arguments.op not in (None, case.op) or arguments.device not in case.devices:
            continue
        case = replace(case, shape=tuple(min(n, 6) for n in case.shape)) if arguments.small else case
        for dtype in case.dtypes:
            if arguments.dtype in (None, str(dtype)[6:]):
                measured = run_case(case, arguments.device, dtype, arguments.rounds)
                rows += [row | environment for row in measured]
                console.print(table(case, dtype, measured))
    out = arguments.out or RESULTS / f"{environment['device'].lower().replace(' ', '-')}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    console.print(f"{len(rows)} rows in {out}")


def run_case(case: Case, device: str, dtype: torch.dtype, rounds: int) -> list[dict[str, Any]]:
    """Gate, warm up, then let the contestants take turns."""
    torch._dynamo.reset()
    contestants = case.build(device, dtype, case.shape)
    clock = cuda_clock if device == "cuda" else cpu_clock
    for contestant in contestants.values():
        for _ in range(3):
            contestant()
    gc.collect()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            contestant()
            times[name] += [clock(contestant) for _ in range(CALLS)]
    yardstick = statistics.median(times[case.yardstick])
    elements = torch.Size(case.shape).numel()
    rows = []
    for name, samples in times.items():
        low, median, high = statistics.quantiles(samples, n=4)
        rows.append(
            {
                "op": case.op,
                "case": case.name,
                "contestant": name,
                "shape": list(case.shape),
                "dtype": str(dtype)[6:],
                "median_ms": round(median, 4),
                "quartiles_ms": [round(low, 4), round(high, 4)],
                "ratio": round(median / yardstick, 3),
                "yardstick": case.yardstick,
                "gb_per_s": round(case.bytes_per_element(dtype.itemsize) * elements / median / 1e6, 2),
            }
        )
    return rows


def keep_freed_memory() -> None:
    """Tell glibc to take blocks up to 32 MB, its limit, from the heap, and never to give the heap back."""
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(M_MMAP_THRESHOLD, 32 << 20) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        raise RuntimeError("mallopt refused: timings would depend on page faults; run on Linux with glibc")


def cpu_clock(contestant: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    contestant()
    return (time.perf_counter() - begin) * 1e3


def cuda_clock(contestant: Callable[[], Any]) -> float:
    """Milliseconds of one call, mean of ten between two events: the launch queue stays full."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(10):
        contestant()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 10


def describe(device: str, threads: int) -> dict[str, Any]:
    """Machine, versions and commit, as they go into each row."""
    facts = report()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    on_gpu = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else cpu_name(),
        "driver": subprocess.run(driver, capture_output=True, text=True, check=True).stdout.strip() if on_gpu else None,
        "threads": threads,
        "torch": facts["torch"],
        "cuda": torch.version.cuda if on_gpu else None,
        "triton": facts["triton"],
        "simd": facts["library"]["simd"],
        "tmkt_kernels": facts["tmkt_kernels"],
        "commit": commit.stdout.strip() + ("+" if dirty.stdout.strip() else ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "CPU"


def table(case: Case, dtype: torch.dtype, rows: list[dict[str, Any]]) -> Table:
    shape = ", ".join(map(str, case.shape))
    result = Table(title=f"{case.op} {case.name} [{shape}] {str(dtype)[6:]}  ({case.target})", title_justify="left")
    for heading in ("contestant", "median ms", "quartiles ms", f"x {case.yardstick}", "GB/s"):
        result.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        low, high = row["quartiles_ms"]
        result.add_row(
            row["contestant"],
            f"{row['median_ms']:.2f}",
            f"{low:.2f} - {high:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['gb_per_s']:.1f}",
        )
    return result


if __name__ == "__main__":
    main()
