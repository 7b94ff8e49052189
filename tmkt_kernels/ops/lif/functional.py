"""The leaky integrate-and-fire neuron over a whole sequence, as one operator."""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ... import backends
from ... import surrogate as sg
from .. import arguments, layout, transforms
from . import op as op
from .reference import LIFParams, Reset, lif_reference

Parameter = float | Tensor
"""A float, or a tensor: a scalar, or one value for each channel."""
Neuron = tuple[LIFParams, Tensor | None]
"""The parameters, and the `coefficients` [5, channels] that stand for the first five, if any of these is a tensor."""


def lif_params(
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: float | tuple[float, float] = 2.0,
) -> LIFParams:
    """Check the neuron's keywords and turn them into the scalars of h = a v + b x + c (keywords as for `lif`)."""
    if isinstance(tau, bool) or not isinstance(tau, (int, float)):
        raise TypeError(f"tau: expected a float, got {type(tau).__name__}")
    if not tau >= 1:
        raise ValueError(f"tau: expected a time constant of at least 1 time step (math.inf for IF), got {tau}")
    threshold = arguments.finite("v_threshold", v_threshold)
    rest = 0.0 if v_reset is None else arguments.finite("v_reset", v_reset, "a finite float, or None for a soft reset")
    a, b, c = 1.0, 1.0, 0.0
    if tau != math.inf:
        tau = arguments.finite("tau", tau)
        a, b, c = 1 - 1 / tau, 1 / tau if decay_input else 1.0, rest / tau
    for name, flag in (("decay_input", decay_input), ("detach_reset", detach_reset)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name}: expected True or False, got {flag!r}")
    reset = Reset.SOFT if v_reset is None else Reset.HARD
    shape = surrogate_fields(surrogate, alpha)
    return LIFParams(a, b, c, threshold, rest, int(reset), *shape, detach_reset)


def surrogate_fields(surrogate: str | sg.UserSurrogate, alpha: float | tuple[float, float]) -> tuple[Any, float, float]:
    """(surrogate as a number or the user's function, alpha, beta)"""
    parsed = sg.parse(surrogate)
    return int(parsed) if isinstance(parsed, sg.Surrogate) else parsed, *sg.parse_shape(parsed, alpha)


def lif_neuron(
    *,
    rate: Parameter | None = None,
    tau: Parameter = 2.0,
    decay_input: bool = True,
    v_threshold: Parameter = 1.0,
    v_reset: Parameter | None = 0.0,
    **others: Any,
) -> Neuron:
    """`lif_params` for parameters that may be tensors; `rate` is 1 / tau, and stands for tau if given."""
    floats: dict[str, Any] = {"tau": tau, "v_threshold": v_threshold, "v_reset": v_reset}
    tensors = {name: p for name, p in {"rate": rate, **floats}.items() if isinstance(p, Tensor)}
    for name, value in floats.items():
        if not isinstance(value, (int, float, Tensor)) and not (name == "v_reset" and value is None):
            raise TypeError(f"{name}: expected a float or a tensor, got {type(value).__name__}")
    if not tensors:
        return lif_params(decay_input=decay_input, **floats, **others), None
    check_parameters(**tensors)
    stand_ins = {
        name: value for name, value in (("tau", 2.0), ("v_threshold", 1.0), ("v_reset", 0.0)) if name in tensors
    }
    params = lif_params(decay_input=decay_input, **(floats | stand_ins), **others)  # checks the floats
    if rate is None:
        rate = 1 / tau
    b: Parameter = rate if decay_input else 1.0
    if not isinstance(rate, Tensor) and rate == 0:
        b = 1.0  # tau = inf: the input is never divided
    rest = 0.0 if v_reset is None else v_reset
    return params, stack_coefficients(1 - rate, b, rest * rate, v_threshold, rest)


def check_parameters(**tensors: Tensor) -> None:
    """Whether tensors among a neuron's keywords have one value each, or one for each of so many channels."""
    channels = 1
    for name, tensor in tensors.items():
        arguments.floating(name, tensor, "with one value, or [C]")
        if tensor.dim() > 1 or tensor.numel() == 0:
            raise ValueError(
                f"{name}: expected one value, or one value for each channel [C]; got shape {tuple(tensor.shape)}"
            )
        if channels > 1 and tensor.numel() not in (1, channels):
            raise ValueError(f"{name}: expected 1 or {channels} values, as other parameters have; got {tensor.numel()}")
        channels = max(channels, tensor.numel())


def stack_coefficients(*five: Parameter) -> Tensor:
    """a, b, c, v_threshold, v_reset -> [5, channels], differentiable, in float32 or a tensor's wider dtype."""
    tensors = [p for p in five if isinstance(p, Tensor)]
    dtype = functools.reduce(torch.promote_types, (p.dtype for p in tensors), torch.float32)
    channels = max(p.numel() for p in tensors)
    constant = functools.partial(tensors[0].new_full, (channels,), dtype=dtype)
    return torch.stack([p.to(dtype).expand(channels) if isinstance(p, Tensor) else constant(p) for p in five])


def lif(
    x_seq: Tensor,
    v_init: Tensor | None = None,
    *,
    tau: Parameter = 2.0,
    decay_input: bool = True,
    v_threshold: Parameter = 1.0,
    v_reset: Parameter | None = 0.0,
    detach_reset: bool = True,
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: float | tuple[float, float] = 2.0,
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
        surrogate: a name (see `tmkt_kernels.surrogate`), or a function (h - v_threshold, alpha) -> derivative, which
            the reference alone can serve.
        alpha: sharpness of the surrogate, or the pair (alpha, beta) for a surrogate with two parameters.
        return_v: also return the membrane potential before reset, h, for every step.
        backend: "auto", "native", "triton" or "reference".

    tau, v_threshold and v_reset may be tensors, with a gradient: one value, or one for each channel (dim 2 of
    x_seq) as [C]. Their values are not checked, and they are computed with in float32.

    Returns:
        (spikes, v_last) or (spikes, v_last, v_seq); spikes [T, B, ...] in x_seq's dtype, 0 or 1;
        v_last [B, ...], the potential after the last reset, in float32; v_seq [T, B, ...] in
        x_seq's dtype. All are differentiable with respect to x_seq, v_init and tensor parameters. Backward
        keeps x_seq alone and recomputes h.

    Raises:
        TypeError, ValueError: a bad shape, dtype, device or parameter, named with what was expected.
        RuntimeError: a backend asked for by name cannot serve this tensor.
    """
    neuron = lif_neuron(
        tau=tau,
        decay_input=decay_input,
        v_threshold=v_threshold,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
    )
    return run(x_seq, v_init, neuron, return_v, backend)


def run(x_seq: Tensor, v_init: Tensor | None, neuron: Neuron, return_v: bool, backend: str) -> tuple[Tensor, ...]:
    """`lif` with its parameters at hand: check, choose the backend, bring into memory order, call, and bring back."""
    check_inputs(x_seq, v_init)
    params, coefficients = neuron
    chosen = backends.choose("lif", x_seq.device, x_seq.dtype, backend)
    if chosen != "reference" and not isinstance(params.surrogate, int):
        raise RuntimeError(
            f"lif: backend {chosen!r} cannot serve this call: the surrogate is a function, which only the reference "
            "can run; pass backend='reference', or the name of a surrogate"
        )
    order = layout.memory_order(x_seq)
    inner = 1
    if coefficients is not None:
        inner = check_coefficients(coefficients, x_seq, order)
        coefficients = coefficients.to(torch.promote_types(x_seq.dtype, torch.float32))
        if v_init is None and (coefficients.requires_grad or transforms.active()):  # rest has a gradient, then
            rest = coefficients[4].view(-1, *[1] * (x_seq.dim() - 3)) if coefficients.shape[1] > 1 else coefficients[4]
            v_init = rest.expand(x_seq.shape[1:])
    x = layout.to_memory_order(x_seq, order)
    if v_init is not None:
        v_init = v_init.to(torch.promote_types(x.dtype, torch.float32))
        v_init = layout.to_memory_order(v_init[None], order)[0] if order else v_init.contiguous()
    spikes: Tensor
    v_last: Tensor
    v_seq: Any
    if chosen == "reference":
        spikes, v_last, v_seq = lif_reference(x, v_init, params, return_v, coefficients, inner)
    else:
        spikes, v_last, v_seq = op.CALL[chosen](x, v_init, coefficients, inner, *params, return_v)
    if order is not None:
        spikes = layout.from_memory_order(spikes, order)
        v_last = layout.from_memory_order(v_last[None], order)[0]
        v_seq = layout.from_memory_order(v_seq, order) if return_v else v_seq
    return (spikes, v_last, v_seq) if return_v else (spikes, v_last)


def check_coefficients(coefficients: Tensor, x_seq: Tensor, order: list[int] | None) -> int:
    """The distance in memory between channels of x_seq; 1 where there is one for all."""
    if coefficients.device != x_seq.device:
        raise ValueError(f"parameters: expected tensors on {x_seq.device} like x_seq, got {coefficients.device}")
    channels = coefficients.shape[1]
    if channels == 1:
        return 1
    if x_seq.dim() < 3 or x_seq.shape[2] != channels:
        raise ValueError(
            f"x_seq: the parameters have values for {channels} channels; expected [T, B, {channels}, ...], "
            f"got shape {tuple(x_seq.shape)}"
        )
    return layout.channel_stride(x_seq.shape, order)


def check_inputs(x_seq: Tensor, v_init: Tensor | None = None) -> None:
    arguments.floating("x_seq", x_seq, "[T, B, ...]")
    if x_seq.dim() < 2 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq: expected [T, B, ...] with T >= 1, got shape {tuple(x_seq.shape)}")
    if v_init is None:
        return
    arguments.floating("v_init", v_init, "[B, ...]")
    if v_init.shape != x_seq.shape[1:]:
        raise ValueError(
            f"v_init: expected x_seq's shape without T, {tuple(x_seq.shape[1:])}, got {tuple(v_init.shape)}"
        )
    if v_init.device != x_seq.device:
        raise ValueError(f"v_init: expected a tensor on {x_seq.device} like x_seq, got {v_init.device}")
