"""Loads the compiled library, or records why there is none."""

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_HERE = Path(__file__).parent
# TMKT_LIBRARY names another build, for tests: CUDA kernels emulated on the CPU, or a build with sanitizers.
LIBRARY = Path(os.environ.get("TMKT_LIBRARY", _HERE / "libtmkt_kernels.so"))
BUILD_REPORT = _HERE / "_build_report.json"  # written by setup.py: what was built, or what was missing

REBUILD = (
    "install a C++20 compiler (g++ or clang++), and then, in the folder of the sources (a checkout or the unpacked "
    "sdist), `pip install --force-reinstall --no-deps .`"
)


@dataclass(frozen=True)
class Extension:
    """The compiled library in this process.

    `devices` holds "cpu" and, if CUDA code was compiled, "cuda"; `problem` says why the
    library is absent; `info` is the library's report of its own build.
    """

    devices: frozenset[str]
    problem: str | None
    info: dict[str, Any]


def build_report() -> dict[str, Any]:
    """Return the report that setup.py wrote at installation; empty in a source tree that was never built."""
    return json.loads(BUILD_REPORT.read_text()) if BUILD_REPORT.exists() else {}


def _load() -> Extension:
    if not LIBRARY.exists():
        if "TMKT_LIBRARY" in os.environ:
            raise FileNotFoundError(f"TMKT_LIBRARY: there is no {LIBRARY}; unset it for the installed library")
        problem = build_report().get("native", "the compiled library is absent: this source tree was never built")
        return Extension(frozenset(), f"{problem}; {REBUILD}", {})
    torch.ops.load_library(str(LIBRARY))  # type: ignore[no-untyped-call]
    describe = ctypes.CDLL(str(LIBRARY)).tmkt_build_info
    describe.restype = ctypes.c_char_p
    info = json.loads(describe())
    _check_simd_choice(info)
    devices = {"cpu"} | ({"cuda"} if info["cuda"] else set())
    return Extension(frozenset(devices), None, info)


def driver_version() -> tuple[int, int] | None:
    """Return the newest CUDA version that the NVIDIA driver supports; None without one. CUDA stays uninitialised."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    error = driver.cuDriverGetVersion(ctypes.byref(version))
    if error:
        raise RuntimeError(f"cuDriverGetVersion: CUDA error {error}")
    return version.value // 1000, version.value % 1000 // 10


def _check_simd_choice(info: dict[str, Any]) -> None:
    """TMKT_SIMD lowers the SIMD level. An unknown level, or one beyond this CPU, is an error."""
    wanted = os.environ.get("TMKT_SIMD", info["simd"])
    levels = info["simd_levels"]
    if wanted not in levels:
        known = ", ".join(map(repr, levels))
        raise ValueError(f"TMKT_SIMD: expected one of {known}, got {wanted!r}; unset it for the best level")
    if wanted != info["simd"]:
        raise ValueError(
            f"TMKT_SIMD: this CPU goes up to {info['simd']!r}, got {wanted!r}; unset it for the best level"
        )


extension = _load()
