"""Static images and event recordings, paired by class."""

from .pairs import EventFrames, PairBatch, PairedData, sample_pairs
from .prepare import PARTS, RunData, digests, fill_cache, load_folder, prepare
from .sources.events import find_recordings, load_recordings

__all__ = [
    "PARTS",
    "EventFrames",
    "PairBatch",
    "PairedData",
    "RunData",
    "digests",
    "fill_cache",
    "find_recordings",
    "load_folder",
    "load_recordings",
    "prepare",
    "sample_pairs",
]
