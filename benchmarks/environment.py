"""Machine, versions and commit, as recorded in each row."""

import hashlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from tmkt_kernels.report import report

ROOT = Path(__file__).parents[1]


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return the environment. `run` is the same for all rows of one run of the benchmarks, and differs between runs."""
    facts = report()
    on_gpu = device == "cuda"
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "run": hashlib.sha256(f"{now} {threads} {time.perf_counter_ns()}".encode()).hexdigest()[:8],
        "device": torch.cuda.get_device_name() if on_gpu else cpu_name(),
        "driver": output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if on_gpu else None,
        "threads": threads,
        "torch": facts["torch"],
        "cuda": torch.version.cuda if on_gpu else None,
        "triton": facts["triton"],
        "tf32": tf32() if on_gpu else None,
        "huge_pages": huge_pages(),
        "simd": facts["library"]["simd"] if isinstance(facts["library"], dict) else None,
        "tmkt_kernels": facts["tmkt_kernels"],
        "commit": commit(),
        "date": now[:10],
    }


def tf32() -> str:
    """Return where torch is set to compute float32 with TF32's 10-bit mantissas, on which a product's speed depends."""
    found = {"matrix products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}
    return ", ".join(where for where, allowed in found.items() if allowed) or "nowhere"


def commit() -> str | None:
    """Return TMKT_COMMIT, if set for a library packed elsewhere; else the commit of this repository, with a + if
    tracked files differ from it; None outside a repository.
    """
    if said := os.environ.get("TMKT_COMMIT"):
        return said
    head = output("git", "rev-parse", "--short", "HEAD")
    return head and head + (
        "+" if output("git", "status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results") else ""
    )


def output(*command: str) -> str | None:
    """Return the output of a program; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def huge_pages() -> bool:
    """Return whether tensors of 2 MB and more lie in pages of 2 MB, for all contestants.

    With pages of 4 kB, their position in memory determines how they share the caches, so that the same operators on the
    same shape differ by a third between two processes. Huge pages leave little to that chance.
    """
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    allowed = setting.exists() and "[never]" not in setting.read_text()
    return allowed and os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "CPU"


def file_name(environment: dict[str, Any], device: str) -> str:
    """Return the name of the results file, one per device, and on the CPU one per number of threads."""
    name = re.sub(r"[^a-z0-9]+", "-", environment["device"].lower()).strip("-")
    return f"{name}.jsonl" if device == "cuda" else f"{name}-{environment['threads']}-threads.jsonl"
