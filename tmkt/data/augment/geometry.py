"""Crops, reflections, rotations and shears of sequences [T, B, C, H, W]: one per sample, the same for its steps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Rows = slice | Tensor
"""Some samples of a batch: a slice, or their indices, int64 on the CPU."""


class Transform(NamedTuple):
    """Augmentation of each of B samples.

    offset int64 [B, 2] of the crop in pixels (y, x), 0 is no shift; flip bool [B]; angle float32 [B],
    counter-clockwise in degrees.
    """

    offset: Tensor
    flip: Tensor
    angle: Tensor

    def share(self, rows: Rows) -> "Transform":
        """Return those of some of the samples."""
        return Transform(*(values[rows] for values in self))

    def apply(self, x_seq: Tensor) -> Tensor:
        """Crop, mirror and rotate each sample of x_seq [T, B, C, H, W]."""
        x_seq = mirror(crop(x_seq, self.offset), self.flip)
        return rotate(x_seq, self.angle) if self.angle.any() else x_seq


def crop(x_seq: Tensor, offset: Tensor) -> Tensor:
    """Crop x_seq [T, B, C, H, W], with zeros beyond its edges, at offset int64 [B, 2], the same for all steps."""
    reach = int(offset.abs().max())
    if reach == 0:
        return x_seq
    height, width = x_seq.shape[-2:]
    padded = torch.nn.functional.pad(x_seq, [reach] * 4)
    crops = [padded[:, b, :, y : y + height, x : x + width] for b, (y, x) in enumerate((offset + reach).tolist())]
    return torch.stack(crops, dim=1)


def mirror(x_seq: Tensor, flip: Tensor) -> Tensor:
    """Mirror the samples of x_seq [T, B, C, H, W] where flip, bool [B], is true."""
    if not flip.any():
        return x_seq
    return torch.where(flip.to(x_seq.device).view(1, -1, 1, 1, 1), x_seq.flip(-1), x_seq)


def rotate(x_seq: Tensor, angle: Tensor) -> Tensor:
    """Rotate each sample of x_seq [T, B, C, H, W] by angle [B] (degrees, counter-clockwise) about its centre.

    Bilinear, zero beyond the edge. All steps of a sample share one grid.
    """
    radians, ratio = torch.deg2rad(angle).to(x_seq.device, x_seq.dtype), x_seq.shape[-2] / x_seq.shape[-1]
    cos, sin = radians.cos(), radians.sin()
    # From output to input, in coordinates of -1..1 along each side; y points down.
    return _resample(x_seq, cos, -sin * ratio, sin / ratio, cos)


def shear(x_seq: Tensor, angle: Tensor) -> Tensor:
    """Shear each sample of x_seq [T, B, C, H, W] along x: vertical lines lean by angle [B], degrees, to the right.

    About the centre, bilinear, zero beyond the edge.
    """
    slope = torch.deg2rad(angle).tan().to(x_seq.device, x_seq.dtype) * (x_seq.shape[-2] / x_seq.shape[-1])
    return _resample(x_seq, torch.ones_like(slope), slope, torch.zeros_like(slope), torch.ones_like(slope))


def _resample(x_seq: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Return the output whose pixel (x, y) is the input's (xx x + xy y, yx x + yy y), each coefficient [B]."""
    T, B, C, height, width = x_seq.shape
    zero = torch.zeros_like(xx)
    matrix = torch.stack([xx, xy, zero, yx, yy, zero], dim=1).view(B, 2, 3)
    planes = x_seq.transpose(0, 1).reshape(B, T * C, height, width)
    grid = torch.nn.functional.affine_grid(matrix, [B, T * C, height, width], align_corners=False)
    turned = torch.nn.functional.grid_sample(planes, grid, align_corners=False)
    return turned.view(B, T, C, height, width).transpose(0, 1).contiguous()


def roll(x_seq: Tensor, offset: Tensor) -> Tensor:
    """Move each sample of x_seq [T, B, C, H, W] down and right by offset int64 [B, 2], around the edges."""
    return torch.stack([x_seq[:, b].roll((y, x), dims=(-2, -1)) for b, (y, x) in enumerate(offset.tolist())], dim=1)


def spans(begin: Tensor, end: Tensor, size: int) -> Tensor:
    """Return bool [B, size], true at begin <= place < end, int64 [B] each."""
    places = torch.arange(size)
    return (begin[:, None] <= places) & (places < end[:, None])


def change(x_seq: Tensor, rows: Tensor, how: Callable[[Tensor], Tensor]) -> None:
    """Apply `how` to the samples `rows`, bool [B] on the CPU, of x_seq [T, B, ...], in place."""
    if rows.any():
        index = rows.nonzero()[:, 0].to(x_seq.device)
        x_seq.index_copy_(1, index, how(x_seq.index_select(1, index)))
