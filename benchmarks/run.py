"""Times the cases and writes a row per contestant: `python -m benchmarks.run [--device cpu|cuda] [--op lif] ...`.

`benchmarks/measure.py` describes the method, and `benchmarks/results/README.md` the rows. Compiled rivals start from an
empty cache, so that first calls are real first calls. If time on the machine is scarce, `--warm` first fills a cache,
in many processes, and `--cache` then runs from it, which the rows record.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ |= {
    "KINETO_LOG_LEVEL": "99",  # silences the profiler that counts memory
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "THP_MEM_ALLOC_ENABLE": "1",  # see environment.huge_pages
}

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
COMPILES = ("torch.compile", "compiled", "triton", "SpikingJelly")  # in names of contestants whose first call compiles


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="turns each contestant takes (default 9)")
    parser.add_argument("--op", help="only this operator")
    parser.add_argument("--case", help="only cases of this name")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="only this dtype")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave this contestant out")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="take this one, beside the copies")
    parser.add_argument(
        "--sweeps", choices=("with", "without", "only"), default="with", help="the scaling plots' points"
    )
    parser.add_argument("--models", choices=("with", "without", "only"), default="with", help="whole networks")
    parser.add_argument("--ours", action="store_true", help="our contestants and the copies alone: the quick part")
    parser.add_argument("--cache", type=Path, help="folder of compiled code, kept; rows say if it was there before")
    parser.add_argument(
        "--warm", type=int, metavar="N", help="measure nothing: call once, in N processes, what compiles; needs --cache"
    )
    parser.add_argument("--limit", type=float, help="seconds after which no case is begun; what is left out is named")
    parser.add_argument("--small", action="store_true", help="tiny shapes: shows that everything runs, times nothing")
    parser.add_argument("--dry", action="store_true", help="the cases of a GPU on the CPU, with tiny shapes")
    parser.add_argument("--out", type=Path, help="JSONL file (default: benchmarks/results/<device>.jsonl)")
    parser.add_argument("--append", action="store_true", help="add a run to the file instead of replacing it")
    arguments = parser.parse_args()
    if arguments.warm and not arguments.cache:
        parser.error("--warm: expected --cache DIR, the folder to fill")
    if arguments.dry and arguments.device != "cpu":
        parser.error("--dry: expected --device cpu, which takes the GPU's part")
    arguments.small |= arguments.dry
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    console = Console(width=132)
    kept = contextlib.nullcontext(arguments.cache)
    with kept if arguments.cache else tempfile.TemporaryDirectory(prefix="tmkt-inductor-") as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(cache, "inductor"))
        if arguments.cache:
            os.environ["TRITON_CACHE_DIR"] = str(Path(cache, "triton"))
        warm(arguments, console) if arguments.warm else run(arguments, console)


def warm(arguments: argparse.Namespace, console: Console) -> None:
    """Compile in many processes at once, into the folder of `--cache`.

    Tuning results are then deleted, because the GPU was shared, and tuning again takes milliseconds.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # otherwise each process would start one per core
    begin, failures = time.perf_counter(), 0
    tasks = [(i, point, kind) for i, point in enumerate(points(arguments)) for kind in COMPILES]
    with ProcessPoolExecutor(arguments.warm, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(call_once, arguments, i, kind): point for i, point, kind in tasks}
        for done in as_completed(running):
            for line in done.result():
                failures += "FAILED" in line
                console.print(f"[{time.perf_counter() - begin:.0f} s] {title(*running[done])}, {line}", markup=False)
    for path in arguments.cache.rglob("*.best_config"):
        path.unlink()
    console.print(f"warm after {time.perf_counter() - begin:.0f} s, {failures} failures")


def call_once(arguments: argparse.Namespace, index: int, kind: str) -> list[str]:
    """In a process of its own, call each contestant of a point once, of those with `kind` in their names."""
    from benchmarks.measure import chosen_contestants

    case, dtype, shape = points(arguments)[index]
    torch.manual_seed(0)
    inputs, lines = case.inputs(arguments.device, dtype, shape), []
    for name, contestant in chosen_contestants(case, arguments.device, dtype, shape, wanted(arguments)).items():
        if next((k for k in COMPILES if k in name), None) != kind:
            continue
        begin = time.perf_counter()
        try:
            contestant.run(inputs)
            lines.append(f"{name}: {time.perf_counter() - begin:.1f} s")
        except Exception as error:  # the timed run reports it again, in full
            lines.append(f"{name}: FAILED, {type(error).__name__}")
    if arguments.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    return lines


def wanted(arguments: argparse.Namespace) -> Callable[[str, Any], bool]:
    """Return whether a contestant was requested; the copies always are."""

    def is_wanted(name: str, contestant: Any) -> bool:
        if "copy_" in name:
            return True
        asked = name in arguments.only if arguments.only else name not in arguments.without
        return asked and (contestant.ours or not arguments.ours)

    return is_wanted


def title(case: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{case.op} {case.name} [{', '.join(map(str, shape))}] {str(dtype)[6:]}"


def run(arguments: argparse.Namespace, console: Console) -> None:
    from benchmarks import rivals
    from benchmarks.environment import describe, file_name
    from benchmarks.measure import keep_freed_memory, measure

    keep_freed_memory()
    begin = time.perf_counter()
    environment = describe(arguments.device, arguments.threads)
    environment["warm_cache"] = bool(arguments.cache) and any(arguments.cache.glob("*/*"))
    console.print(f"{environment['device']}, {arguments.threads} thread(s), torch {environment['torch']}")
    for name in rivals.absent():
        console.print(f"{name}: not installed, left out")
    out = arguments.out or RESULTS / file_name(environment, arguments.device)
    out.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []

    def note(why: str, is_failure: bool) -> None:
        console.print(why, highlight=False, markup=False)
        if is_failure:
            failures.append(why)

    todo, left_out, written = points(arguments), [], 0
    with out.open("a" if arguments.append else "w") as file:
        for i, (case, dtype, shape) in enumerate(todo, 1):
            spent = time.perf_counter() - begin
            name = title(case, dtype, shape)
            if arguments.limit and spent > arguments.limit:
                left_out.append(name)
                continue
            note(f"[{i}/{len(todo)}, {spent:.0f} s] {name}", False)
            torch.manual_seed(0)
            try:
                rows = measure(case, arguments.device, dtype, shape, arguments.rounds, note, wanted(arguments))
            except Exception as error:  # other cases' rows are still useful; the exit code tells
                note(f"FAILED: {name}: {type(error).__name__}: {error}", True)
                continue
            targets = [] if arguments.small else case.targets(arguments.device, dtype)
            for row in rows:
                file.write(json.dumps(row | {"targets": [list(target) for target in targets]} | environment) + "\n")
            written += len(rows)
            file.flush()
            console.print(table(case, rows, targets))
    for name in left_out:
        note(f"left out, the limit of {arguments.limit:.0f} s was reached: {name}", False)
    console.print(f"{written} rows in {out}, {time.perf_counter() - begin:.0f} s, {len(failures)} failures")
    sys.exit(1 if failures else 0)


def points(arguments: argparse.Namespace) -> list[tuple[Any, torch.dtype, tuple[int, ...]]]:
    """Return (case, dtype, shape) of all that was requested, each once, those of the lowest rank first."""
    from benchmarks.cases import CASES

    chosen, device = {}, "cuda" if arguments.dry else arguments.device
    for case in CASES:
        sweeps = {"with": True, "without": not case.sweep, "only": bool(case.sweep)}[arguments.sweeps]
        models = {"with": True, "without": not case.model, "only": case.model}[arguments.models]
        named = arguments.op in (None, case.op) and arguments.case in (None, case.name)
        if not (sweeps and models and named and device in case.devices):
            continue
        shape = case.shape_on(device, arguments.small)
        for dtype in case.dtypes_on(device):
            if arguments.dtype in (None, str(dtype)[6:]):
                chosen.setdefault((case.op, case.name, case.sweep, dtype, shape), (case, dtype, shape))
    return sorted(chosen.values(), key=lambda point: point[0].rank)


def table(case: Any, rows: list[dict[str, Any]], targets: Sequence[Any]) -> Table:
    from benchmarks.case import judge

    verdicts = [str(verdict) for verdict in judge(targets, rows)]
    result = Table(caption="; ".join(verdicts) or None, caption_justify="left")
    headings = (
        "contestant",
        "median ms",
        "quartiles ms",
        f"x {case.yardstick}",
        "of copy",
        "peak MB",
        "kept MB",
        "first ms",
    )
    for heading in headings:
        result.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        low, high = row["quartiles_ms"]
        share = row.get("share_of_copy")
        result.add_row(
            row["contestant"],
            f"{row['median_ms']:.3f}",
            f"{low:.3f} - {high:.3f}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            "" if share is None else f"{share:.0%}",
            f"{row['peak_mb']:.1f}",
            "" if row["saved_mb"] is None else f"{row['saved_mb']:.1f}",
            f"{row['first_call_ms']:.0f}",
        )
    return result


if __name__ == "__main__":
    main()
