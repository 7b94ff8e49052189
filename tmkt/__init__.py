"""TMKT: knowledge transfer from static images to event-camera data by time-step mixup (arXiv 2511.12150)."""

from . import mixup

__version__ = "0.1.0"
__all__ = ["mixup"]
