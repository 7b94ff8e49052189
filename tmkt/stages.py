"""Stages of a training step, and their times while someone measures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

REST = "other"  # time outside every stage


class _Laps:
    """Seconds of each stage by laps: one ends wherever a stage begins or ends, and counts for the innermost stage.

    On a GPU an event marks each lap, and the processor waits for it, so that a stage's work counts for that stage.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu, self.seconds = device.type == "cuda", dict[str, float]()
        self.open = [REST]
        self.mark = self._now()

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        event.synchronize()
        return event

    def lap(self) -> None:
        now = self._now()
        seconds = self.mark.elapsed_time(now) / 1e3 if self.on_gpu else now - self.mark
        self.seconds[self.open[-1]] = self.seconds.get(self.open[-1], 0.0) + seconds
        self.mark = now


_laps: _Laps | None = None


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name a block, or as a decorator a function, as a stage. Its time is without that of the stages inside it."""
    laps = _laps
    if laps is None:
        yield
        return
    laps.lap()
    laps.open.append(name)
    try:
        yield
    finally:
        laps.lap()
        laps.open.pop()


@contextmanager
def timed(device: torch.device) -> Iterator[dict[str, float]]:
    """Within the block, add up the seconds of each stage that runs, and of the rest under `REST`; they fill the block.

    Not for several threads, nor for a block inside another.
    """
    global _laps
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    _laps = laps = _Laps(device)
    try:
        yield laps.seconds
    finally:
        laps.lap()
        _laps = None
