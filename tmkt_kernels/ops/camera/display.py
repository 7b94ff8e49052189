"""What the camera looks at: images at the scale of its pixels, wide enough for all of their motion."""

import math

import torch
from torch import Tensor


def grey(images: Tensor) -> Tensor:
    """Return uint8 [N, H, W] of [N, 1, H, W], or the luminance of [N, 3, H, W] (ITU-R BT.601, in 1/256)."""
    if images.shape[1] == 1:
        return images[:, 0]
    red, green, blue = images.int().unbind(1)
    return ((77 * red + 150 * green + 29 * blue + 128) >> 8).to(torch.uint8)


def intensities(images: Tensor) -> Tensor:
    """Return float32 from 0 to 1 for uint8, from a table: on a GPU, torch divides by a number only approximately."""
    return (torch.arange(256.0) / 255).to(images.device)[images.long()]


def display(images: Tensor, scale: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Return intensities [B, height, width] of images [B, h, w] from 0 to 1, shown at `scale`, in float32.

    scale: float64 [B], pixels of the camera per pixel of the image. corner: float64 [B, 2], position (x, y) of the
    result's upper left corner relative to the image's centre, in pixels of the camera. size: (width, height).

    A pixel is the mean of the image over an area of max(1, 1 / scale) of its pixels in each direction. So the image is
    averaged where it shrinks, interpolated linearly where it grows, and kept at scale 1. Beyond its edges, the
    outermost pixels continue.
    """
    rows = _resampled(images, scale, corner[:, 1], size[1])
    return _resampled(rows.transpose(1, 2), scale, corner[:, 0], size[0]).transpose(1, 2).contiguous()


def _resampled(planes: Tensor, scale: Tensor, start: Tensor, size: int) -> Tensor:
    """Resample planes [B, n, m] along n to [B, size, m]. Weights are rounded once; the order of the sum is fixed."""
    n = planes.shape[1]
    device = planes.device
    extent = (1 / scale).clamp(min=1)  # of a pixel, in pixels of the plane
    centre = (start[:, None] + torch.arange(size, dtype=torch.float64) + 0.5) / scale[:, None] + n / 2
    begin, end = centre - extent[:, None] / 2, centre + extent[:, None] / 2
    first = begin.floor()
    samples = torch.arange(len(planes), device=device)[:, None]
    total = torch.zeros(len(planes), size, planes.shape[2], device=device)
    for tap in range(math.ceil(max(extent.tolist(), default=0.0)) + 1):
        low = first + tap
        overlap = (torch.minimum(end, low + 1) - torch.maximum(begin, low)).clamp(min=0)
        weight = (overlap / extent[:, None]).float().to(device)
        index = low.clamp(0, n - 1).long().to(device)
        total = total + planes[samples, index] * weight[:, :, None]
    return total
