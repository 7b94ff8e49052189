"""Static images and event recordings, paired by class."""

from .augment import Augmentation
from .pairs import EventFrames, PairBatch, PairedData, sample_pairs
from .prepare import PARTS, RunData, digests, fill_cache, load_folder, load_test, prepare

__all__ = [
    "PARTS",
    "Augmentation",
    "EventFrames",
    "PairBatch",
    "PairedData",
    "RunData",
    "digests",
    "fill_cache",
    "load_folder",
    "load_test",
    "prepare",
    "sample_pairs",
]
