"""Layers on the fused operators. They map x_seq [T, B, ...] to spikes of the same shape."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from . import _dispatch
from .lif import check_inputs, lif_params, run
from .mixup import time_step_mixup

__all__ = ["IF", "LIF", "TimeStepMixup"]


class LIF(nn.Module):
    """Leaky integrate-and-fire layer; keywords are those of `tmkt_kernels.lif`.

    Stateless by default: every call starts at rest. With `stateful=True` the membrane potential is
    carried from call to call, detached from the graph of the call before, until `reset()`; it
    never enters state_dict.

    Args:
        return_v: return (spikes, v_seq) instead of spikes.
        stateful: keep v between calls.

    Raises:
        ValueError: a stateful layer gets a batch of another shape, device than the one it holds v for.
    """

    v: Tensor | None

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str = "atan",
        alpha: float = 2.0,
        *,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.neuron: dict[str, Any] = {
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
            "surrogate": surrogate,
            "alpha": alpha,
        }
        self.params = lif_params(**self.neuron)
        self.return_v = return_v
        self.stateful = stateful
        self.backend = backend
        self.v = None

    def reset(self) -> None:
        """Forget the membrane potential: the next call starts at rest."""
        self.v = None

    def forward(self, x_seq: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.v is not None and (self.v.shape != x_seq.shape[1:] or self.v.device != x_seq.device):
            raise ValueError(
                f"x_seq: this stateful layer holds v for a batch of shape {tuple(self.v.shape)} on {self.v.device}, "
                f"got {tuple(x_seq.shape[1:])} on {x_seq.device}; call reset() between sequences"
            )
        check_inputs(x_seq, self.v)
        backend = _dispatch.choose("lif", x_seq.device.type, x_seq.dtype, self.backend)
        spikes, v_last, *v_seq = run(backend, x_seq, self.v, self.params, self.return_v)
        if self.stateful:
            self.v = v_last.detach()
        return (spikes, v_seq[0]) if self.return_v else spikes

    def extra_repr(self) -> str:
        neuron = ", ".join(f"{name}={value!r}" for name, value in self.neuron.items())
        return f"{neuron}, return_v={self.return_v}, stateful={self.stateful}, backend={self.backend!r}"


class IF(LIF):
    """Integrate-and-fire layer, h = v + x: LIF with an infinite time constant. Keywords as for LIF, without tau."""

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str = "atan",
        alpha: float = 2.0,
        *,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            tau=math.inf,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
            alpha=alpha,
            return_v=return_v,
            stateful=stateful,
            backend=backend,
        )


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
