"""Simulated recordings in the sequences of a training step."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..data.augment.geometry import Rows
from ..data.pairs import PairBatch, PairedData
from ..stages import stage


class Spans(NamedTuple):
    """The steps begin <= t < end of each sequence that show its simulated recording, int64 [S, B] for S streams."""

    begin: Tensor
    end: Tensor

    def share(self, rows: Rows) -> "Spans":
        """Return those of some of the pairs."""
        return Spans(self.begin[:, rows], self.end[:, rows])

    def mask(self, stream: int, T: int) -> Tensor:
        """Return bool [T, B], true at the steps of a stream that show the recording."""
        steps = torch.arange(T)[:, None]
        return (self.begin[stream] <= steps) & (steps < self.end[stream])


class SimulatedPart(NamedTuple):
    """Simulated recordings of a batch, frames [T, B, 2, H, W], and the steps of each stream that show them."""

    frames: Tensor
    spans: Spans

    def put_into(self, x_seq: Tensor, stream: int, scale: float) -> Tensor:
        """Return the sequences x_seq [T, B, 2, H, W] of a stream with its span of the frames, times `scale`."""
        shown = self.spans.mask(stream, len(x_seq))[..., None, None, None]
        if not shown.any():
            return x_seq
        return torch.where(shown.to(x_seq.device), self.frames.float() * scale, x_seq)


def simulated_part(
    data: PairedData, pairs: PairBatch, main: Tensor, mixed: Tensor | None, generator: torch.Generator, rows: Rows
) -> SimulatedPart | None:
    """Make the simulated recordings of some of the pairs, each as far as a stream shows it; None without cameras.

    main, mixed: switch steps int64 [B] of the streams.
    """
    if data.camera is None or pairs.simulated is None:
        return None
    with stage("simulation"):
        T = len(data.events.frames)
        spans = draw_spans(data.camera.place, pairs.simulated.used, main, mixed, T, generator).share(rows)
        needed = torch.where(spans.begin < spans.end, spans.end, 0).amax(0)
        return SimulatedPart(data.camera.frames(pairs.simulated.share(rows), needed), spans)


def draw_spans(
    place: str, used: Tensor, main: Tensor, mixed: Tensor | None, T: int, generator: torch.Generator
) -> Spans:
    """Return the spans of the main stream, and of the mixed one if there is one, by `place` (`data.bridge_place`).

    In place of events, a span begins at the switch step; in place of images, it ends there. Between the two it ends
    there too, and begins at a step that is uniform from 0 to the switch step; only the mixed stream has it. used: bool
    [B], the pairs that have a simulated recording.
    """
    switch_step = torch.stack([main] if mixed is None else [main, mixed])
    begin, end = torch.zeros_like(switch_step), switch_step
    if place == "events":
        begin, end = switch_step, torch.full_like(switch_step, T)
    elif place == "between":
        way = torch.rand(len(main), dtype=torch.float64, generator=generator)
        begin = torch.cat([switch_step[:1], (way * (switch_step[1:] + 1)).long()])
    return Spans(begin, torch.where(used, end, begin))
