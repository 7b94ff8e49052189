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
    """Return float32 from 0 to 1 for uint8. On a GPU, where torch divides only approximately, from a table."""
    if images.device.type == "cpu":
        return images.float() / 255
    return (torch.arange(256.0) / 255).to(images.device)[images.long()]


def display(images: Tensor, scale: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Return intensities [B, height, width] of images [B, h, w] from 0 to 1, shown at `scale`, in float32.

    scale: float64 [B], pixels of the camera per pixel of the image. corner: float64 [B, 2], position (x, y) of the
    result's upper left corner relative to the image's centre, in pixels of the camera. size: (width, height).

    A pixel is the mean of the image over an area of max(1, 1 / scale) of its pixels in each direction. So the image is
    averaged where it shrinks, interpolated linearly where it grows, and kept at scale 1. Beyond its edges, the
    outermost pixels continue.
    """
    rows = _resampled(images, 1, scale, corner[:, 1], size[1])
    return _resampled(rows, 2, scale, corner[:, 0], size[0])


def _resampled(planes: Tensor, dim: int, scale: Tensor, start: Tensor, size: int) -> Tensor:
    """Resample planes [B, n, m] along dimension 1 or 2. Weights are rounded once; the order of the sum is fixed."""
    B, n = len(planes), planes.shape[dim]
    along = (B, -1, 1) if dim == 1 else (B, 1, -1)
    shape = (B, size, planes.shape[2]) if dim == 1 else (B, planes.shape[1], size)
    extent = (1 / scale).clamp(min=1)[:, None]  # of a pixel, in pixels of the plane
    centre = (start[:, None] + torch.arange(size, dtype=torch.float64) + 0.5) / scale[:, None] + n / 2
    begin, end = centre - extent / 2, centre + extent / 2
    first = begin.floor()
    total = None
    for tap in range(math.ceil(max(extent[:, 0].tolist(), default=0.0)) + 1):
        low = first + tap
        weight = ((torch.minimum(end, low + 1) - torch.maximum(begin, low)) / extent).clamp(min=0).float()
        if weight.any():
            index = low.clamp(0, n - 1).long().to(planes.device)
            part = planes.gather(dim, index.view(along).expand(shape)).mul_(weight.to(planes.device).view(along))
            total = part if total is None else total.add_(part)
    return planes.new_zeros(shape) if total is None else total
