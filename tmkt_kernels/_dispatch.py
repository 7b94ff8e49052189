"""The only place that chooses a backend.

"native" is the compiled C++/CUDA library, "triton" the Triton kernels, "reference" plain PyTorch.
"auto" takes the first of them that serves the tensor's device and dtype. A backend asked for by
name that cannot serve raises with the reason and the remedy; nothing falls back on an exception.
"""

import importlib.util
import os
import sys

import torch

from ._extension import extension

BACKENDS = ("native", "triton", "reference")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def _native_problem(device: str) -> str | None:
    if extension.problem:
        return extension.problem
    if device in extension.devices:
        return None
    if device == "cuda":
        return "the library was compiled without CUDA; install again with nvcc on the PATH and TMKT_CUDA=1"
    return f"there is no compiled kernel for device {device!r}; move the tensor to the CPU or to a CUDA device"


def _triton_problem(device: str) -> str | None:
    if not _HAS_TRITON:
        return "the package triton is not installed; `pip install triton`"
    if device == "cuda" or (device == "cpu" and TRITON_INTERPRETED):
        return None
    return (
        f"Triton runs on CUDA devices, the tensor is on {device!r}; move it there, "
        "or set TRITON_INTERPRET=1 before the first import to run the kernels slowly on the CPU"
    )


# Computed once, as strings: torch.compile traces through `choose`, so it must stay a table look-up.
_PROBLEMS: dict[tuple[str, str], str | None] = {
    (backend, device): problem(device)
    for device in ("cpu", "cuda")
    for backend, problem in (("native", _native_problem), ("triton", _triton_problem))
}


def problem(backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot serve tensors of this device type and dtype; None if it can."""
    if backend == "reference":
        return None
    if (backend, device) not in _PROBLEMS:
        return f"{backend} kernels exist for cpu and cuda; the tensor is on {device!r}"
    if dtype not in KERNEL_DTYPES:
        return f"{backend} kernels take float32, bfloat16 and float16; got {dtype} (the reference takes float64 too)"
    return _PROBLEMS[backend, device]


def choose(op: str, device: str, dtype: torch.dtype, requested: str) -> str:
    """Name the backend that serves operator `op` on this device type and compute dtype.

    Raises ValueError for an unknown name and RuntimeError for a known one that cannot serve.
    """
    if requested == "auto":
        # Interpreted Triton is for testing the kernels, hundreds of times slower than the reference.
        for backend in BACKENDS:
            if problem(backend, device, dtype) is None and not (backend == "triton" and TRITON_INTERPRETED):
                return backend
    if requested not in BACKENDS:
        raise ValueError(f"backend: expected 'auto', 'native', 'triton' or 'reference'; got {requested!r}")
    why_not = problem(requested, device, dtype)
    if why_not is not None:
        raise RuntimeError(f"{op}: backend {requested!r} cannot serve this call: {why_not}")
    return requested


def explain(op: str, device: str) -> list[tuple[str, str]]:
    """For `python -m tmkt_kernels`: each backend with "serves ..." or the reason why it does not (float32)."""
    chosen = choose(op, device, torch.float32, "auto")
    rows = []
    for backend in BACKENDS:
        why_not = problem(backend, device, torch.float32)
        verdict = "chosen by auto" if backend == chosen else "available by name" if why_not is None else why_not
        rows.append((backend, verdict))
    return rows


def triton_version() -> str | None:
    """Version of the installed Triton, without importing it."""
    if not _HAS_TRITON:
        return None
    if "triton" in sys.modules:
        return sys.modules["triton"].__version__
    from importlib.metadata import version

    return version("triton")
