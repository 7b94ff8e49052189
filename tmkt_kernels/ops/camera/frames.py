"""Events of the reference, counted into frames or listed; mirrors what the kernels do as they fire."""

from typing import NamedTuple

import torch
from torch import Tensor

from .area import SHARE_BITS
from .reference import simulate
from .scene import Scene

MOST_COUNT = 2**15 - 1
TOO_MANY = (
    "simulate_frames: more than 32767 events of one polarity at a pixel in one bin, which int16 cannot count; raise T "
    "or the threshold, or pass size"
)


class Bins(NamedTuple):
    """Where events are counted.

    ends: int32 [B, T], first microsecond after each bin.
    columns, rows: int32 [sensor width or height, 1 + taps], tables of `area_table`; None: the sensor's own pixels.
    width, height: of the frames.
    """

    ends: Tensor
    columns: Tensor | None
    rows: Tensor | None
    width: int
    height: int


def reference_frames(scene: Scene, bins: Bins) -> Tensor:
    """Return frames [T, B, 2, height, width]: int16 counts, or with tables float32."""
    B, T = bins.ends.shape
    plane = bins.width * bins.height
    parts = torch.zeros(T * B * 2 * plane, dtype=torch.int64, device=scene.display.device)

    def count(pixel: Tensor, at: Tensor, on: Tensor) -> None:
        sample, place = pixel // (scene.width * scene.height), pixel % (scene.width * scene.height)
        step = torch.searchsorted(bins.ends[sample], at[:, None].int(), right=True)[:, 0]
        frame = ((step * B + sample) * 2 + on.long()) * plane
        if bins.columns is None or bins.rows is None:
            parts.index_put_((frame + place,), torch.ones_like(frame), accumulate=True)
            return
        column, row = bins.columns[place % scene.width].long(), bins.rows[place // scene.width].long()
        for j in range(1, row.shape[1]):
            for i in range(1, column.shape[1]):
                cell = frame + (row[:, 0] + j - 1) * bins.width + column[:, 0] + i - 1
                parts.index_put_((cell,), row[:, j] * column[:, i], accumulate=True)

    simulate(scene, count)
    frames = parts.view(T, B, 2, bins.height, bins.width)
    if bins.columns is not None:
        return frames.float() * 2.0 ** (-2 * SHARE_BITS)
    if frames.numel() and int(frames.max()) > MOST_COUNT:
        raise RuntimeError(TOO_MANY)
    return frames.to(torch.int16)


def reference_events(scene: Scene) -> Tensor:
    """Return the events of the one recording of a scene, int64 [N, 4]: x, y, time in us, polarity.

    They are in order of time; at one time, in order of rows and columns; at one pixel, as they came.
    """
    parts: list[Tensor] = []

    def keep(pixel: Tensor, at: Tensor, on: Tensor) -> None:
        parts.append(torch.stack([pixel % scene.width, pixel // scene.width, at.long(), on.long()], dim=1))

    simulate(scene, keep)
    events = torch.cat([torch.empty(0, 4, dtype=torch.int64, device=scene.display.device), *parts])
    for column in (0, 1, 2):
        events = events[events[:, column].sort(stable=True).indices]
    return events
