"""Augmentation of sequences [T, B, C, H, W], drawn once per sample and the same for all of its steps."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import DataConfig


class Transform(NamedTuple):
    """Augmentation of each of B samples.

    offset int64 [B, 2] of the crop in pixels (y, x), 0 is no shift; flip bool [B]; angle float32 [B],
    counter-clockwise in degrees.
    """

    offset: Tensor
    flip: Tensor
    angle: Tensor

    def apply(self, x_seq: Tensor) -> Tensor:
        """Crop, mirror and rotate each sample of x_seq [T, B, C, H, W]."""
        x_seq = crop(x_seq, self.offset)
        if self.flip.any():
            mirrored = self.flip.to(x_seq.device).view(1, -1, 1, 1, 1)
            x_seq = torch.where(mirrored, x_seq.flip(-1), x_seq)
        return rotate(x_seq, self.angle) if self.angle.any() else x_seq


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of samples; by default none.

    padding: pixels of zeros around a sample before the random crop; flip: mirror half of the samples;
    rotation: the largest angle, in degrees.
    """

    padding: int = 0
    flip: bool = False
    rotation: float = 0.0

    @staticmethod
    def of(config: DataConfig) -> "Augmentation":
        """Return the augmentation of a configuration; the default padding is a twelfth of the width."""
        padding = config.size[0] // 12 if config.crop_padding is None else config.crop_padding
        return Augmentation(padding, config.flip, config.rotation)

    def draw(self, batch: int, generator: torch.Generator) -> Transform:
        """Draw a transform for each of `batch` samples, on the CPU."""
        offset = self.draw_offset(batch, generator)
        flip, angle = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch)
        if self.flip:
            flip = torch.rand(batch, generator=generator) < 0.5
        if self.rotation > 0:
            angle = (2 * torch.rand(batch, generator=generator) - 1) * self.rotation
        return Transform(offset, flip, angle)

    def draw_offset(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw only the offset of each crop, int64 [batch, 2] in -padding..padding."""
        return torch.randint(2 * self.padding + 1, (batch, 2), generator=generator) - self.padding


NO_AUGMENTATION = Augmentation()


def crop(x_seq: Tensor, offset: Tensor) -> Tensor:
    """Crop x_seq [T, B, C, H, W], with zeros beyond its edges, at offset int64 [B, 2], the same for all steps."""
    reach = int(offset.abs().max())
    if reach == 0:
        return x_seq
    height, width = x_seq.shape[-2:]
    padded = torch.nn.functional.pad(x_seq, [reach] * 4)
    crops = [padded[:, b, :, y : y + height, x : x + width] for b, (y, x) in enumerate((offset + reach).tolist())]
    return torch.stack(crops, dim=1)


def rotate(x_seq: Tensor, angle: Tensor) -> Tensor:
    """Rotate each sample of x_seq [T, B, C, H, W] by angle [B] (degrees, counter-clockwise) about its centre.

    Bilinear, zero beyond the edge. All steps of a sample share one grid.
    """
    T, B, C, height, width = x_seq.shape
    radians = torch.deg2rad(angle).to(x_seq.device, x_seq.dtype)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # From output to input, in coordinates of -1..1 along each side; y points down.
    ratio = height / width
    matrix = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], dim=1).view(B, 2, 3)
    planes = x_seq.transpose(0, 1).reshape(B, T * C, height, width)
    grid = torch.nn.functional.affine_grid(matrix, [B, T * C, height, width], align_corners=False)
    turned = torch.nn.functional.grid_sample(planes, grid, align_corners=False)
    return turned.view(B, T, C, height, width).transpose(0, 1).contiguous()
