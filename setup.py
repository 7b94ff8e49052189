"""Runs CMake: the torch operators (libtmkt_kernels.so) and the pybind11 module tmkt_kernels._events.

A missing compiler does not fail the install. The package then runs on Triton and the reference, and the first slow call
and `python -m tmkt_kernels` report what was missing, because pip hides output printed here. A compiler that is present
but fails is an error.

Environment: TMKT_NATIVE=0 builds nothing; TMKT_CUDA=0 leaves CUDA out and TMKT_CUDA=1 requires it
(default: if nvcc is found); TMKT_CUDA_ARCHS="80;90" names the architectures, "all" those of CMakeLists.txt
(default: those of the visible GPUs, or all without a GPU); TMKT_AVX512=0 leaves out the CPU's loops for
AVX-512.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def missing_tool() -> str | None:
    """Return what prevents compiling anything, or None."""
    if os.environ.get("TMKT_NATIVE") == "0":
        return "switched off by TMKT_NATIVE=0"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler or not shutil.which(compiler.split()[0]):
        return "no C++ compiler was found (c++, g++, clang++ or $CXX)"
    if not (shutil.which("cmake") and shutil.which("ninja")):
        return "cmake and ninja were not found (`pip install cmake ninja`)"
    if importlib.util.find_spec("torch") is None:
        return "torch was not installed when building; without build isolation, `pip install torch` first"
    return None


def missing_for_events() -> str | None:
    """Return what prevents compiling only the Python extension module, or None."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's C headers (Python.h) were not found; install python3-dev"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 was not installed when building; `pip install pybind11`"
    return None


def find_nvcc() -> str | None:
    """Return the path of nvcc. CUDA is built if nvcc is found, whether or not a GPU is visible."""
    if os.environ.get("TMKT_CUDA") == "0":
        return None
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None and os.environ.get("TMKT_CUDA") == "1":
        raise SystemExit("TMKT_CUDA=1, but nvcc was not found: put it on the PATH or set CUDACXX")
    return nvcc


def no_cuda() -> str:
    """Return why there is no nvcc to compile with."""
    return "switched off by TMKT_CUDA=0" if os.environ.get("TMKT_CUDA") == "0" else "nvcc was not found"


def cuda_archs() -> str | None:
    """Return the architectures to compile for, or None for all. A machine without a GPU may compile for another."""
    asked = os.environ.get("TMKT_CUDA_ARCHS")
    if asked:
        return None if asked == "all" else asked
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # no GPU is not our error
    return ";".join(sorted({major + minor for major, minor in re.findall(r"^(\d+)\.(\d+)$", printed, re.M)})) or None


class CMakeBuild(build_ext):
    """Builds the extension declared below as one CMake project."""

    def run(self) -> None:
        package = ROOT / "tmkt_kernels" if self.inplace else Path(self.build_lib).resolve() / "tmkt_kernels"
        package.mkdir(parents=True, exist_ok=True)
        problem = missing_tool()
        report = {"native": f"not built: {problem}", "events": f"not built: {problem}"} if problem else {}
        if not problem:
            report = self.build(package)
        (package / "_build_report.json").write_text(json.dumps(report, indent=2) + "\n")
        for part, outcome in report.items():
            print(f"tmkt_kernels: {part}: {outcome}", file=sys.stderr)

    def build(self, package: Path) -> dict[str, str]:
        torch_dir = Path(importlib.util.find_spec("torch").submodule_search_locations[0])
        nvcc, no_events = find_nvcc(), missing_for_events()
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_PREFIX": package,
            "TMKT_TORCH_DIR": torch_dir,
            "TMKT_CUDA": "ON" if nvcc else "OFF",
            "TMKT_AVX512": "OFF" if os.environ.get("TMKT_AVX512") == "0" else "ON",
            "TMKT_EVENTS": "OFF" if no_events else "ON",
            "Python_EXECUTABLE": sys.executable,
        }
        if nvcc:
            options["CMAKE_CUDA_COMPILER"] = nvcc
        if not no_events:
            import pybind11

            options["pybind11_DIR"] = pybind11.get_cmake_dir()
        if archs := cuda_archs():
            options["TMKT_CUDA_ARCHS"] = archs
        # One folder per Python and torch, so that a second environment does not reuse the first one's cache.
        tag = f"cmake-{sys.implementation.cache_tag}-{abs(hash_path(torch_dir)):x}"
        build_dir = ROOT / "build" / tag
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        # The cache remembers architectures, and those of an earlier build must not narrow one that requests all.
        subprocess.check_call(["cmake", "-S", ROOT, "-B", build_dir, "-G", "Ninja", "-UTMKT_CUDA_ARCHS", *definitions])
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        subprocess.check_call(["cmake", "--build", build_dir, "--parallel", jobs])
        subprocess.check_call(["cmake", "--install", build_dir])
        return {
            "native": "built",
            "cuda": f"built with {nvcc}" if nvcc else f"not built: {no_cuda()}",
            "events": f"not built: {no_events}" if no_events else "built",
        }

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "tmkt_kernels").glob("*.so")]

    def copy_extensions_to_source(self) -> None:  # a build in place writes there directly
        pass


def hash_path(path: Path) -> int:
    """Return a number that is the same in every process, unlike hash()."""
    import zlib

    return zlib.crc32(str(path).encode())


setup(ext_modules=[Extension("tmkt_kernels._events", sources=[])], cmdclass={"build_ext": CMakeBuild})
