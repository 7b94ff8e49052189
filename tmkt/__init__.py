"""TMKT: knowledge transfer from static images to event-camera data by time-step mixup (arXiv 2511.12150)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import mixup

__version__ = "0.1.0"
__all__ = ["mixup"]


def __getattr__(name: str) -> Any:
    """Import `tmkt.mixup` at its first use, because it loads torch and `tmkt --help` should not wait for that."""
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
