"""Report of the installation: what is installed, and which backend serves each operator, as plain values."""

import platform
from typing import Any

import numpy
import torch

from . import __version__, backends
from .events.arrays import compiled
from .extension import extension


def report() -> dict[str, Any]:
    """Return everything that `python -m tmkt_kernels` prints and that benchmark rows carry."""
    has_gpu = torch.cuda.is_available()
    return {
        "tmkt_kernels": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": backends.triton_version(),
        "numpy": numpy.__version__,
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "library": extension.info or extension.problem,
        "events": events_status(),
        "backends": {
            device: {op: backends.explain(op, device) for op in backends.OPERATORS}
            for device in (("cpu", "cuda") if has_gpu else ("cpu",))
        },
    }


def events_status() -> str:
    """Return whether the compiled module of tmkt_kernels.events is available."""
    try:
        compiled()
    except ImportError as error:
        return str(error)
    return "compiled"
