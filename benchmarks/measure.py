"""Measures one case: gate, first call, memory, then times with all contestants in turn.

Contestants take turns within one process, so that a busy machine slows all of them equally, and each turn begins with
an untimed call; slow ones take fewer turns. On a GPU, calls rotate over input sets that together exceed the L2 cache,
and are timed by events. On the CPU all contestants, including the yardstick, use one set.
"""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.case import Case, Contestant, Inputs, Shape

CALLS = 3  # timed calls per turn on the CPU
CUDA_CALLS = 10  # on a GPU, between two events, so that the launch queue stays full
SECONDS = 0.5  # time budget per contestant, with at least MIN_TURNS turns
MIN_TURNS = 3


class Entry(NamedTuple):
    """A contestant that passed its gate, with milliseconds and MB."""

    contestant: Contestant
    first_call_ms: float
    peak_mb: float
    saved_mb: float | None


def measure(
    case: Case,
    device: str,
    dtype: torch.dtype,
    shape: Shape,
    rounds: int,
    note: Callable[[str, bool], None],
    wanted: Callable[[str, Contestant], bool] = lambda name, contestant: True,
) -> list[dict[str, Any]]:
    """Return a row for each contestant that is `wanted`. `note(why, ours)` is called for those that could not run.

    Raises:
        AssertionError: a result of ours is wrong, so nothing is timed. A rival with a wrong result is left out.
    """
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
    sets = input_sets(case, device, dtype, shape)
    contestants = chosen_contestants(case, device, dtype, shape, wanted)
    expected = case.expected(sets[0])
    entries: dict[str, Entry] = {}
    for name, contestant in contestants.items():
        try:
            entries[name] = gate(contestant, sets[0], expected, device)
        except AssertionError as error:
            if contestant.ours:
                raise AssertionError(f"{case.op} {case.name}, {dtype}, {list(shape)}: {name}: {error}") from error
            note(f"{name} is wrong and left out: {error}", True)
        except Exception as error:
            why = (str(error).strip().splitlines() or [""])[0][:160]
            note(f"{name} cannot run here: {type(error).__name__}: {why}", contestant.ours)
    del expected
    gc.collect()
    times = take_turns({name: entry.contestant.run for name, entry in entries.items()}, sets, device, rounds)
    return rows(case, dtype, shape, sets[0], entries, times)


def chosen_contestants(
    case: Case, device: str, dtype: torch.dtype, shape: Shape, wanted: Callable[[str, Contestant], bool]
) -> dict[str, Contestant]:
    return {
        name: contestant
        for name, contestant in case.contestants(device, dtype, shape).items()
        if (not case.only or name in case.only) and wanted(name, contestant)
    }


def input_sets(case: Case, device: str, dtype: torch.dtype, shape: Shape) -> list[Inputs]:
    """Return one set, or on a GPU as many as exceed three times its L2 cache, at least two."""
    first = case.inputs(device, dtype, shape)
    if device == "cpu":
        return [first]
    tensors = [t for t in vars(first).values() if isinstance(t, Tensor)]
    held = max(1, sum(t.numel() * t.itemsize for t in tensors))
    needed = 3 * torch.cuda.get_device_properties().L2_cache_size
    return [first, *(case.inputs(device, dtype, shape) for _ in range(max(1, min(64, -(-needed // held) - 1))))]


def gate(contestant: Contestant, inputs: Inputs, expected: Any, device: str) -> Entry:
    """Time the first call, with compilation and tuning, and check its result; then measure the memory of later calls.
    The peak is measured separately, because counting the kept tensors also holds them to the end."""
    begin = time.perf_counter()
    result = contestant.run(inputs)
    synchronize(device)
    first_call = (time.perf_counter() - begin) * 1e3
    if contestant.check:
        contestant.check(result, expected)
    del result
    contestant.run(inputs)
    with peak_memory(device) as peak:
        contestant.run(inputs)
    saved: dict[int, int] = {}
    with kept_for_backward(saved):
        contestant.run(inputs)
    kept = None if contestant.changes_if_watched else sum(saved.values()) / 1e6
    return Entry(contestant, first_call, peak[0] / 1e6, kept)


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """Record the most bytes that torch's allocator held at a time, beyond those held before; outputs count."""
    peak = [0]
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        torch.cuda.synchronize()
        peak[0] = torch.cuda.max_memory_allocated() - before
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield peak
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak[0] = max(peak[0], held)


@contextlib.contextmanager
def kept_for_backward(saved: dict[int, int]) -> Iterator[None]:
    """Fill `saved` with the bytes of each storage that the graph keeps, without parameters."""
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            alive.append(storage)  # otherwise another could get its address
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    alive.clear()


def take_turns(
    runs: dict[str, Callable[[Inputs], Any]], sets: list[Inputs], device: str, rounds: int
) -> dict[str, list[float]]:
    """Return milliseconds of single calls, by contestant."""
    clock = cuda_clock if device == "cuda" else cpu_clock
    calls, turns = {}, {}
    for name, run in runs.items():
        run(sets[0])
        took = sum(clock(run, sets, 1)) / 1e3
        calls[name] = (CUDA_CALLS if device == "cuda" else CALLS) if took < 0.02 else 1
        turns[name] = min(rounds, max(MIN_TURNS, int(SECONDS / (took * (calls[name] + 1) + 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name, run in runs.items():
            if (i + 1) * turns[name] // rounds > i * turns[name] // rounds:
                if calls[name] > 1:
                    run(sets[i % len(sets)])
                times[name] += clock(run, sets, calls[name])
    return times


def cpu_clock(run: Callable[[Inputs], Any], sets: list[Inputs], calls: int) -> list[float]:
    """Return milliseconds of each call."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        run(sets[0])
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def cuda_clock(run: Callable[[Inputs], Any], sets: list[Inputs], calls: int) -> list[float]:
    """Return milliseconds per call, as the mean of those between two events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for i in range(calls):
        run(sets[i % len(sets)])
    end.record()
    end.synchronize()
    return [begin.elapsed_time(end) / calls]


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rows(
    case: Case,
    dtype: torch.dtype,
    shape: Shape,
    inputs: Inputs,
    entries: dict[str, Entry],
    times: dict[str, list[float]],
) -> list[dict[str, Any]]:
    """Return the rows to write; see `benchmarks/results/README.md` for the fields."""
    medians = {name: statistics.median(samples) for name, samples in times.items()}
    traffic = case.traffic(inputs)
    copied = 2 * inputs.out.numel() * inputs.out.itemsize  # by copy_, the measure of bandwidth
    medians["floor"] = traffic.bytes / copied * medians["copy_"]
    ours = min((medians[name] for name in entries if name.startswith("tmkt")), default=None)
    result = []
    for name, entry in entries.items():
        low, median, high = (float(q) for q in np.percentile(times[name], (25, 50, 75)))
        row = {
            "op": case.op,
            "case": case.name,
            "sweep": case.sweep,
            "contestant": name,
            "version": entry.contestant.version,
            "shape": list(shape),
            "dtype": str(dtype)[6:],
            "median_ms": round(median, 5),
            "quartiles_ms": [round(low, 5), round(high, 5)],
            "samples": len(times[name]),
            "yardstick": case.yardstick,
            "ratio": round(median / medians[case.yardstick], 3) if case.yardstick in medians else None,
            "times_ours": round(median / ours, 3) if ours else None,
            "first_call_ms": round(entry.first_call_ms, 2),
            "peak_mb": round(entry.peak_mb, 3),
            "saved_mb": None if entry.saved_mb is None else round(entry.saved_mb, 3),
        }
        if "copy_" not in name:
            row |= {
                "bytes": traffic.bytes,
                "operations": traffic.operations,
                "gb_per_s": round(traffic.bytes / median / 1e6, 2),
                "gop_per_s": round(traffic.operations / median / 1e6, 2),
                "share_of_copy": round(medians["floor"] / median, 3) if "copy_" in case.yardstick else None,
            }
        else:
            row["gb_per_s"] = round(copied / median / 1e6, 2) if name == "copy_" else None
        result.append(row)
    return result


def keep_freed_memory() -> None:
    """Tell glibc to take all blocks from the heap, and never to give the heap back.

    Memory returned to the system would be faulted in again page by page, which costs more than any kernel here and hits
    contestants at random.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        raise RuntimeError("mallopt refused: timings would depend on page faults; run on Linux with glibc")
