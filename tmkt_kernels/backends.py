"""The only place that chooses a backend.

"native" is the compiled C++/CUDA library, "triton" the Triton kernels, "reference" plain PyTorch.
"auto" takes the first of them that serves the tensor's device and dtype, and forward-mode tangents if there are any. If
the user names a backend that cannot serve, it raises with the reason and the remedy. No exception leads to a fallback.
With GPUs of different kinds, each GPU is checked by itself.
"""

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Collection

import torch
from torch.autograd import forward_ad

from .extension import driver_version, extension

OPERATORS = ("bn_lif", "camera", "lif", "mixup")
BACKENDS = ("native", "triton", "reference")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def forward_mode() -> bool:
    """Return whether tangents are being computed: torch.func.jvp, jacfwd, hessian, or torch.autograd.forward_ad."""
    return forward_ad._current_level >= 0


def native_problem(device: str) -> str | None:
    if extension.problem:
        return extension.problem
    if device in extension.devices:
        return None
    if device == "cuda":
        return "the library was compiled without CUDA; install again with nvcc on the PATH and TMKT_CUDA=1"
    return f"there is no compiled kernel for device {device!r}; move the tensor to the CPU or to a CUDA device"


def cuda_problem(
    archs: Collection[int],
    ptx: Collection[int],
    runtime: tuple[int, int],
    capability: tuple[int, int],
    driver: tuple[int, int] | None,
) -> str | None:
    """Return why a library cannot run on a GPU of this compute capability under this driver; None if it can.

    The library has machine code for `archs` (86 for sm_86) and PTX for `ptx`, both made by CUDA `runtime`, which is
    linked in. Machine code runs on its own major version from its own minor on. The driver compiles PTX for any later
    GPU if it is at least as new as the CUDA that made it. Drivers serve every CUDA of their major version and below.
    """
    made_by = f"the library was compiled by CUDA {runtime[0]}.{runtime[1]}"
    if driver is None:
        return f"{made_by}, and there is no NVIDIA driver (libcuda.so.1); install it"
    has = f"the driver serves CUDA {driver[0]}.{driver[1]}"
    if driver[0] < runtime[0]:
        return f"{made_by}, {has} at most; update the driver, or install again with nvcc of CUDA {driver[0]}"
    gpu = 10 * capability[0] + capability[1]
    if any(arch // 10 == capability[0] and arch <= gpu for arch in archs):
        return None
    if not any(arch <= gpu for arch in ptx):
        known = ", ".join(f"sm_{arch}" for arch in archs)
        return f"the library was compiled for {known}, the GPU is sm_{gpu}; install again with TMKT_CUDA_ARCHS={gpu}"
    if driver < runtime:
        return f"{made_by} and has only PTX for sm_{gpu}, {has} at most and so cannot translate it; update the driver"
    return None


def gpu_problem(index: int | None) -> str | None:
    """Return why the library cannot run on this GPU (None: the current one). A constant under torch.compile."""
    if not torch.cuda.is_available():
        return None  # a fake tensor
    gpu = torch.cuda.get_device_properties(index)
    return cuda_problem(_ARCHS, _PTX, _RUNTIME, (gpu.major, gpu.minor), _DRIVER)


remembered_gpu_problem = functools.cache(gpu_problem)


def triton_problem(device: str) -> str | None:
    if not _HAS_TRITON:
        return "the package triton is not installed; `pip install triton`"
    if device == "cuda" or (device == "cpu" and TRITON_INTERPRETED):
        return None
    return (
        f"Triton runs on CUDA devices, the tensor is on {device!r}; move it there, "
        "or set TRITON_INTERPRET=1 before the first import to run the kernels slowly on the CPU"
    )


_ARCHS, _PTX = ([int(arch) for arch in extension.info.get(key, "").split()] for key in ("cuda_archs", "cuda_ptx"))
_RUNTIME, _DRIVER = (0, 0), None
if extension.info.get("cuda"):
    _major, _minor, *_ = extension.info["cuda"].split(".")
    _RUNTIME, _DRIVER = (int(_major), int(_minor)), driver_version()

# A table of strings, computed once, because torch.compile traces through `choose`. The checks that need a GPU wait for
# the first tensor on one: they initialise CUDA, and a process cannot fork after that.
PROBLEMS: dict[tuple[str, str], str | None] = {
    (backend, device): problem(device)
    for device in ("cpu", "cuda")
    for backend, problem in (("native", native_problem), ("triton", triton_problem))
}


def problem(backend: str, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Return why `backend` cannot serve tensors of this device and dtype; None if it can."""
    device = torch.device(device)
    if backend == "reference":
        return None
    if forward_mode():
        return (
            "no kernel has a forward-mode derivative (torch.func.jvp, jacfwd, hessian, forward_ad); the reference has"
        )
    if (backend, device.type) not in PROBLEMS:
        return f"{backend} kernels exist for cpu and cuda; the tensor is on {device.type!r}"
    if dtype not in KERNEL_DTYPES:
        return f"{backend} kernels take float32, bfloat16 and float16; got {dtype} (the reference takes float64 too)"
    why_not = PROBLEMS[backend, device.type]
    if why_not is None and (backend, device.type) == ("native", "cuda"):
        current = device.index is None  # whichever GPU is current
        ask = gpu_problem if current or torch.compiler.is_compiling() else remembered_gpu_problem
        return ask(device.index)
    return why_not


def choose(op: str, device: torch.device | str, dtype: torch.dtype, requested: str) -> str:
    """Return the name of the backend that serves operator `op` on this device and compute dtype.

    Raises ValueError for an unknown name and RuntimeError for a known backend that cannot serve.
    """
    if requested == "auto":
        chosen = first_that_serves(device, dtype)
        if chosen == "reference" and not torch.compiler.is_compiling():
            _warn_of_slowness(torch.device(device).type, dtype in KERNEL_DTYPES and not forward_mode())
        return chosen
    if requested not in BACKENDS:
        raise ValueError(f"backend: expected 'auto', 'native', 'triton' or 'reference'; got {requested!r}")
    why_not = problem(requested, device, dtype)
    if why_not is not None:
        raise RuntimeError(f"{op}: backend {requested!r} cannot serve this call: {why_not}")
    return requested


def first_that_serves(device: torch.device | str, dtype: torch.dtype) -> str:
    """Return the backend that "auto" means. Never interpreted Triton, which is for tests and very slow."""
    for backend in BACKENDS:
        if problem(backend, device, dtype) is None and not (backend == "triton" and TRITON_INTERPRETED):
            return backend
    raise AssertionError("the reference serves everything")


@functools.cache  # once per process
def _warn_of_slowness(device: str, kernels_take_it: bool) -> None:
    """Warn when plain PyTorch serves a call only because the installation lacks kernels."""
    if kernels_take_it and device in ("cpu", "cuda"):
        warnings.warn(
            f"tmkt_kernels: plain PyTorch serves tensors on {device}, several times slower than a kernel: "
            f"{problem('native', device, torch.float32)}",
            RuntimeWarning,
            stacklevel=4,
        )


SERVES = ("chosen by auto", "available by name")  # results of `explain` for a backend that serves


def explain(op: str, device: torch.device | str) -> list[tuple[str, str]]:
    """For `python -m tmkt_kernels`: return each backend with "serves ..." or the reason why it does not (float32)."""
    chosen = first_that_serves(device, torch.float32)
    rows = []
    for backend in BACKENDS:
        why_not = problem(backend, device, torch.float32)
        rows.append((backend, SERVES[0] if backend == chosen else SERVES[1] if why_not is None else why_not))
    return rows


def triton_version() -> str | None:
    """Return the version of the installed Triton, without importing it."""
    if not _HAS_TRITON:
        return None
    if "triton" in sys.modules:
        return sys.modules["triton"].__version__
    from importlib.metadata import version

    return version("triton")
