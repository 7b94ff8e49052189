"""Augmentations on sequences [T, B, C, H, W]: drawn once a sample, alike for all of its steps."""

import torch
from torch import Tensor

from .pairs import PairBatch


def augment(x_seq: Tensor, pairs: PairBatch, crop_padding: int) -> Tensor:
    """Crop, mirror and rotate each sample of x_seq [T, B, C, H, W] as `pairs` says."""
    x_seq = random_crop(x_seq, pairs.offset, crop_padding)
    if pairs.flip.any():
        mirrored = pairs.flip.to(x_seq.device).view(1, -1, 1, 1, 1)
        x_seq = torch.where(mirrored, x_seq.flip(-1), x_seq)
    return rotate(x_seq, pairs.angle) if pairs.angle.any() else x_seq


def random_crop(x_seq: Tensor, offset: Tensor, padding: int) -> Tensor:
    """Cut x_seq [T, B, C, H, W], zero-padded by `padding`, at offset [B, 2]: all steps of a sample alike."""
    if padding == 0:
        return x_seq
    height, width = x_seq.shape[-2:]
    padded = torch.nn.functional.pad(x_seq, [padding] * 4)
    crops = [padded[:, b, :, y : y + height, x : x + width] for b, (y, x) in enumerate(offset.tolist())]
    return torch.stack(crops, dim=1)


def rotate(x_seq: Tensor, angle: Tensor) -> Tensor:
    """Turn each sample of x_seq [T, B, C, H, W] by angle [B] (degrees, counter-clockwise) about its centre.

    Bilinear, zero beyond the edge. One grid a sample serves all of its steps.
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
