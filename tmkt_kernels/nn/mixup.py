"""Time-step mixup as a layer."""

import torch
from torch import Tensor, nn

from ..ops.mixup.functional import time_step_mixup


class TimeStepMixup(nn.Module):
    """`tmkt_kernels.time_step_mixup` as a layer, with its scale, dtype and backend fixed.

    Args:
        scale: one factor for both streams, or (static_scale, event_scale).
        dtype: of the mixed sequence; None promotes the float inputs, float32 if there is none.
        backend: "auto", "native", "triton" or "reference".
    """

    def __init__(
        self,
        scale: float | tuple[float, float] = 1.0,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.scale, self.dtype, self.backend = scale, dtype, backend

    def forward(
        self,
        static: Tensor,
        events: Tensor,
        switch_step: Tensor,
        static_index: Tensor | None = None,
        event_index: Tensor | None = None,
    ) -> Tensor:
        return time_step_mixup(
            static,
            events,
            switch_step,
            static_index=static_index,
            event_index=event_index,
            scale=self.scale,
            dtype=self.dtype,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"scale={self.scale}, dtype={self.dtype}, backend={self.backend!r}"
