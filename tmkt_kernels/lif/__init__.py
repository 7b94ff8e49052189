"""The leaky integrate-and-fire neuron over a whole sequence, as one operator."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _dispatch, _layout
from .. import surrogate as sg
from . import op as op
from .reference import LIFParams, lif_reference


def lif_params(
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: str = "atan",
    alpha: float = 2.0,
) -> LIFParams:
    """Check the neuron's keywords and turn them into the scalars of h = a v + b x + c (keywords as for `lif`)."""
    for name, value in {"tau": tau, "v_threshold": v_threshold, "v_reset": v_reset, "alpha": alpha}.items():
        if not isinstance(value, (int, float)) and not (name == "v_reset" and value is None):
            raise TypeError(f"{name}: expected a float, got {type(value).__name__}; see `lif` for what it takes")
    if not tau >= 1:
        raise ValueError(f"tau: expected a time constant of at least 1 time step (math.inf for IF), got {tau}")
    if not math.isfinite(v_threshold) or not math.isfinite(v_reset or 0.0):
        raise ValueError(f"v_threshold and v_reset: expected finite numbers, got {v_threshold} and {v_reset}")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha: expected a positive, finite surrogate sharpness, got {alpha}")
    a, b, c = 1.0, 1.0, 0.0
    if math.isfinite(tau):
        a, b, c = 1 - 1 / tau, 1 / tau if decay_input else 1.0, (v_reset or 0.0) / tau
    reset = None if v_reset is None else float(v_reset)
    return LIFParams(a, b, c, float(v_threshold), reset, int(sg.parse(surrogate)), float(alpha), bool(detach_reset))


def lif(
    x_seq: Tensor,
    v_init: Tensor | None = None,
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: str = "atan",
    alpha: float = 2.0,
    return_v: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Run a layer of leaky integrate-and-fire neurons over all T time steps.

    Per neuron, h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau with `decay_input`, and
    h[t] = v[t-1] - (v[t-1] - v_reset) / tau + x[t] without; a spike s[t] = 1 where h[t] >= v_threshold;
    then v[t] = v_reset where it fired, or v[t] = h[t] - s[t] v_threshold if `v_reset` is None (soft
    reset; v_reset counts as 0 in the charge). `tau=math.inf` is the IF neuron, h = v + x, either way.

    Args:
        x_seq: input current [T, B, ...], float32, bfloat16 or float16 (float64: reference only). Any
            layout with T outermost and dense steps (channels_last too) is used and kept as it is;
            any other is copied once.
        v_init: membrane potential before the first step, [B, ...]; None starts at rest, that is at
            v_reset (0 if the reset is soft).
        tau: membrane time constant in time steps, >= 1.
        decay_input: divide the input by tau too.
        v_threshold: firing threshold.
        v_reset: potential after a spike; None subtracts v_threshold instead.
        detach_reset: no gradient through the reset.
        surrogate: "atan", "sigmoid", "triangle" or "rectangle" (see `tmkt_kernels.surrogate`).
        alpha: sharpness of the surrogate.
        return_v: also return the membrane potential before reset, h, for every step.
        backend: "auto", "native", "triton" or "reference".

    Returns:
        (spikes, v_last) or (spikes, v_last, v_seq): spikes [T, B, ...] in x_seq's dtype, 0 or 1;
        v_last [B, ...], the potential after the last reset, in float32; v_seq [T, B, ...] in
        x_seq's dtype. All are differentiable with respect to x_seq and v_init. Backward keeps
        x_seq alone and recomputes h.

    Raises:
        TypeError, ValueError: a bad shape, dtype, device or parameter, named with what was expected.
        RuntimeError: a backend asked for by name cannot serve this tensor.
    """
    params = lif_params(
        tau=tau,
        decay_input=decay_input,
        v_threshold=v_threshold,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
    )
    check_inputs(x_seq, v_init)
    chosen = _dispatch.choose("lif", x_seq.device.type, x_seq.dtype, backend)
    return run(chosen, x_seq, v_init, params, return_v)


def run(backend: str, x_seq: Tensor, v_init: Tensor | None, params: LIFParams, return_v: bool) -> tuple[Tensor, ...]:
    """`lif` behind its checks: flatten to [T, N] in memory order, call the backend, restore the shape."""
    order = _layout.memory_order(x_seq)
    x = _layout.to_steps(x_seq, order)
    if v_init is not None:
        v_init = _layout.to_steps(v_init.to(torch.promote_types(x.dtype, torch.float32))[None], order)[0]
    spikes: Tensor
    v_last: Tensor
    v_seq: Any
    if backend == "reference":
        spikes, v_last, v_seq = lif_reference(x, v_init, params, return_v)
    else:
        forward = torch.ops.tmkt.lif_fwd if backend == "native" else torch.ops.tmkt.lif_fwd_triton
        spikes, v_last, v_seq = forward(x, v_init, *params, return_v)
    spikes = _layout.from_steps(spikes, x_seq.shape, order)
    v_last = _layout.from_steps(v_last[None], torch.Size([1, *x_seq.shape[1:]]), order)[0]
    if return_v:
        return spikes, v_last, _layout.from_steps(v_seq, x_seq.shape, order)
    return spikes, v_last


def check_inputs(x_seq: Tensor, v_init: Tensor | None) -> None:
    if not isinstance(x_seq, Tensor):
        raise TypeError(f"x_seq: expected a tensor [T, B, ...], got {type(x_seq).__name__}")
    if not x_seq.is_floating_point():
        raise TypeError(f"x_seq: expected a floating-point tensor, got {x_seq.dtype}; convert it first")
    if x_seq.dim() < 2 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq: expected [T, B, ...] with T >= 1, got shape {tuple(x_seq.shape)}")
    if v_init is None:
        return
    if v_init.shape != x_seq.shape[1:]:
        raise ValueError(
            f"v_init: expected x_seq's shape without T, {tuple(x_seq.shape[1:])}, got {tuple(v_init.shape)}"
        )
    if v_init.device != x_seq.device:
        raise ValueError(f"v_init: expected a tensor on {x_seq.device} like x_seq, got {v_init.device}")
    if not v_init.is_floating_point():
        raise TypeError(f"v_init: expected a floating-point tensor, got {v_init.dtype}; convert it first")
