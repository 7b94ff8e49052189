"""Augmentation of sequences [T, B, C, H, W], drawn once per sample and the same for all of its steps."""

from .augmentation import NO_AUGMENTATION, Augmentation
from .event_drop import EventDrop
from .geometry import Transform, crop, rotate
from .mix import Blend, Mix
from .nda import Nda

__all__ = [
    "NO_AUGMENTATION",
    "Augmentation",
    "Blend",
    "EventDrop",
    "Mix",
    "Nda",
    "Transform",
    "crop",
    "rotate",
]
