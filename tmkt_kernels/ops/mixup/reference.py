"""Definition of time-step mixup: X_m[t] = X_a[t] for t < t*, X_e[t] for t >= t* (TSM, arXiv 2511.12150)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Selection(NamedTuple):
    """The switch step, image and recording of each of B samples (None: image or recording b for sample b), and the
    factors of all images and of all recordings."""

    switch_step: Tensor
    static_index: Tensor | None
    event_index: Tensor | None
    static_scale: float
    event_scale: float


def mixup_reference(static: Tensor, events: Tensor, selection: Selection, dtype: torch.dtype) -> Tensor:
    """static [Bs, 1 or C, H, W], events [T, Be, C, H, W], switch steps in 0..T -> mixed [T, B, C, H, W].

    Scaled in fp32 (fp64 for an fp64 result), then converted to `dtype`.
    """
    compute = torch.promote_types(dtype, torch.float32)
    if selection.static_index is not None:
        static = static[selection.static_index]
    if selection.event_index is not None:
        events = events[:, selection.event_index]
    time = torch.arange(events.shape[0], device=events.device)
    is_event = (time[:, None] >= selection.switch_step)[:, :, None, None, None]
    scaled_static = static.to(compute) * selection.static_scale
    scaled_events = events.to(compute) * selection.event_scale
    return torch.where(is_event, scaled_events, scaled_static).to(dtype)
