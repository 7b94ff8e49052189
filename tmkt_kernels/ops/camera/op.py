"""Schemas and fakes of `tmkt::camera_frames` and `tmkt::camera_events`, which have no derivatives."""

from typing import Any

import torch
from torch import Tensor

_SCENE = (
    "Tensor display, Tensor times, Tensor shares, Tensor n_steps, Tensor sensor, Tensor seeds, int width, int height"
)
FRAMES_SCHEMA = f"({_SCENE}, Tensor ends, Tensor? columns, Tensor? rows, int out_width, int out_height) -> Tensor"
EVENTS_SCHEMA = f"({_SCENE}, int first_row, int last_row) -> Tensor"


def fake_frames(display: Tensor, *args: Any) -> Tensor:
    ends, columns, _, width, height = args[-5:]
    dtype = torch.int16 if columns is None else torch.float32
    return display.new_empty((ends.shape[1], ends.shape[0], 2, height, width), dtype=dtype)


def fake_events(display: Tensor, *args: Any) -> Tensor:
    n_events = torch.library.get_ctx().new_dynamic_size()
    return display.new_empty((n_events, 13), dtype=torch.uint8)
