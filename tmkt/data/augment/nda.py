"""NDA, geometric augmentations of event data."""

from typing import NamedTuple

import torch
from torch import Tensor

from .geometry import Rows, change, roll, rotate, shear, spans

DEGREES = 15.0
ROLL, HOLE = 3 / 48, 8 / 48  # of the sides of a frame


class Nda(NamedTuple):
    """NDA's policy for B samples (Li et al., ECCV 2022, arXiv 2203.06145): a flip, then one of four changes.

    Theirs: a horizontal flip of half of the samples, then rolling, rotation, shear along x or cutout, each as often as
    the others; and the mildest of their magnitudes, those of N-Caltech101 at 48x48: 3 pixels, 15 degrees, 15 degrees
    and a hole of 8x8 pixels. Chosen: one change per sample, pixels in proportion to the frame, bilinear sampling.

    flip bool [B]. offset int64 [B, 2] of the rolling, in pixels (y, x). angle and lean float32 [B], of rotation and
    shear, in degrees. hole int64 [B, 4], the first row, the row after the last, and so the columns. streams: as
    `data.augment.streams`. A change that a sample does not have is 0.
    """

    flip: Tensor
    offset: Tensor
    angle: Tensor
    lean: Tensor
    hole: Tensor
    streams: str

    @staticmethod
    def draw(streams: str, batch: int, size: tuple[int, int], generator: torch.Generator) -> "Nda":
        """Draw a change for each of `batch` samples of `size` (height, width), on the CPU."""
        flip = torch.rand(batch, generator=generator) < 0.5
        which = torch.randint(4, (batch,), generator=generator)
        offset, edges = [], []
        for side in size:
            reach, length = max(1, round(ROLL * side)), max(1, round(HOLE * side))
            offset.append(torch.randint(-reach, reach + 1, (batch,), generator=generator))
            first = torch.randint(side, (batch,), generator=generator) - length // 2
            edges += [first.clamp(min=0), (first + length).clamp(max=side)]
        angle, lean = DEGREES * (2 * torch.rand(2, batch, generator=generator) - 1)
        return Nda(
            flip,
            torch.stack(offset, 1) * (which == 0)[:, None],
            angle * (which == 1),
            lean * (which == 2),
            torch.stack(edges, 1) * (which == 3)[:, None],
            streams,
        )

    def share(self, rows: Rows) -> "Nda":
        """Return those of some of the samples."""
        flip, offset, angle, lean, hole, streams = self
        return Nda(flip[rows], offset[rows], angle[rows], lean[rows], hole[rows], streams)

    def apply(self, x_seq: Tensor, shows_recording: Tensor) -> Tensor:
        """Change x_seq [T, B, C, H, W], in place, at the steps of `streams`; shows_recording: bool [T, B], CPU."""
        before = x_seq if self.streams == "both" else x_seq.clone()
        rolled, turned, leaning = self.offset.any(1), self.angle != 0, self.lean != 0
        change(x_seq, self.flip, lambda x: x.flip(-1))
        change(x_seq, rolled, lambda x: roll(x, self.offset[rolled]))
        change(x_seq, turned, lambda x: rotate(x, self.angle[turned]))
        change(x_seq, leaning, lambda x: shear(x, self.lean[leaning]))
        change(x_seq, self.hole.any(1), self._cut_out)
        if self.streams == "both":
            return x_seq
        steps = shows_recording if self.streams == "events" else ~shows_recording
        return torch.where(steps.to(x_seq.device)[..., None, None, None], x_seq, before)

    def _cut_out(self, x_seq: Tensor) -> Tensor:
        height, width = x_seq.shape[-2:]
        top, bottom, left, right = self.hole[self.hole.any(1)].T
        hole = spans(top, bottom, height)[:, None, :, None] & spans(left, right, width)[:, None, None, :]
        return x_seq.masked_fill(hole.to(x_seq.device), 0)
