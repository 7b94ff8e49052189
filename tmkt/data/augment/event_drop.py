"""EventDrop, which leaves out events of recordings."""

from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import Rows, change, spans

NOTHING, TIME, AREA, RANDOM = range(4)


class EventDrop(NamedTuple):
    """What B recordings lose (Gu et al., IJCAI 2021, arXiv 2106.05836): a span of steps, a box of all steps, or cells.

    Theirs: each of the three as often as the others; the span is 0.1, 0.2 .. 0.9 of the time, from a uniform start and
    cut at the end; the sides of the box are 0.05, 0.10 .. 0.25 of the frame's, about a uniform centre and cut at the
    edges; at random, 0.1, 0.2 .. 0.9 of the events. Chosen, because frames hold no single events: a span is of whole
    steps, and leaves at least one; at random, whole cells (t, polarity, y, x) are lost, each with that probability.

    box int64 [B, 6]: begin and end of steps, rows and columns, 0 for none. lost: float32 [B], the probability of a
    cell. seed: int64 [B], of these cells, which are drawn on the CPU when needed, and so the same for every device.
    """

    box: Tensor
    lost: Tensor
    seed: Tensor

    @staticmethod
    def draw(probability: float, batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> "EventDrop":
        """Draw what each of `batch` recordings of shape (T, H, W) loses, if anything, on the CPU."""
        T, *sides = shape
        used = torch.rand(batch, dtype=torch.float64, generator=generator) < probability
        way = torch.where(used, torch.randint(TIME, RANDOM + 1, (batch,), generator=generator), NOTHING)
        tenths = torch.randint(1, 10, (batch,), generator=generator)
        begin = torch.randint(T, (batch,), generator=generator)
        length = (T * tenths / 10).round().long().clamp(min=1)
        end = torch.minimum(begin + length, torch.where(begin == 0, T - 1, T))
        span, box = [begin, end], [torch.zeros_like(begin), torch.full_like(begin, T)]
        twentieths = torch.randint(1, 6, (batch,), generator=generator)
        for side in sides:
            span += [torch.zeros_like(begin), torch.full_like(begin, side)]
            length = (side * twentieths / 20).round().long().clamp(min=1)
            first = torch.randint(side, (batch,), generator=generator) - length // 2
            box += [first.clamp(min=0), (first + length).clamp(max=side)]
        dropped = torch.where((way == TIME)[:, None], torch.stack(span, 1), torch.stack(box, 1))
        seed = torch.randint(2**63 - 1, (batch,), generator=generator)
        in_box = (way == TIME) | (way == AREA)
        return EventDrop(dropped * in_box[:, None], tenths / 10 * (way == RANDOM), seed)

    def share(self, rows: Rows) -> "EventDrop":
        """Return those of some of the samples."""
        return EventDrop(*(values[rows] for values in self))

    def apply(self, x_seq: Tensor, shows_recording: Tensor) -> Tensor:
        """Set the loss of x_seq [T, B, C, H, W] to zero, in place, where shows_recording, bool [T, B] on the CPU."""
        shown = shows_recording[..., None, None, None]
        boxed, scattered = self.box.any(1), self.lost > 0
        change(x_seq, boxed, lambda x: x.masked_fill_(self._boxes(x, boxed, shown[:, boxed]), 0))
        change(x_seq, scattered, lambda x: x.masked_fill_(self._cells(x, scattered, shown[:, scattered]), 0))
        return x_seq

    def _boxes(self, x_seq: Tensor, rows: Tensor, shown: Tensor) -> Tensor:
        T, _, _, height, width = x_seq.shape
        begin, end, top, bottom, left, right = self.box[rows].T
        y, x = spans(top, bottom, height), spans(left, right, width)
        steps = spans(begin, end, T).T[..., None, None, None] & shown
        return steps.to(x_seq.device) & (y[:, None, :, None] & x[:, None, None, :]).to(x_seq.device)

    def _cells(self, x_seq: Tensor, rows: Tensor, shown: Tensor) -> Tensor:
        shape = x_seq.shape[:1] + x_seq.shape[2:]
        draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in self.seed[rows].tolist()]
        lost = torch.stack(draws, 1) < self.lost[rows].view(1, -1, 1, 1, 1)
        return (lost & shown).to(x_seq.device)
