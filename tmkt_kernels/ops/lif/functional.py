"""The leaky integrate-and-fire neuron over a whole sequence, as one operator."""

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ... import surrogate as sg
from .. import arguments, layout, library, transforms
from . import op
from .recurrence import Parameter, Recurrence, Shape
from .reference import lif_reference

CALL = library.register("lif", op)
"""The operator, by backend."""


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
    alpha: Shape = 2.0,
    return_v: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Run a layer of leaky integrate-and-fire neurons over all T time steps.

    Per neuron, h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau with `decay_input`, and
    h[t] = v[t-1] - (v[t-1] - v_reset) / tau + x[t] without; a spike s[t] = 1 where h[t] >= v_threshold;
    then v[t] = v_reset where it fired, or v[t] = h[t] - s[t] v_threshold if `v_reset` is None (soft
    reset; v_reset counts as 0 in the charge). `tau=math.inf` is the IF neuron, h = v + x, either way.

    Args:
        x_seq: input current [T, B, ...], float32, bfloat16 or float16 (float64: reference only). Any layout with T
            outermost and dense steps (channels_last too) is used and kept; any other is copied once.
        v_init: membrane potential before the first step, [B, ...]; None is v_reset (0 if the reset is soft).
        tau: membrane time constant in time steps, >= 1.
        decay_input: divide the input by tau too.
        v_threshold: firing threshold.
        v_reset: potential after a spike; None subtracts v_threshold instead.
        detach_reset: no gradient through the reset.
        surrogate: a name (see `tmkt_kernels.surrogate`), or a function (h - v_threshold, alpha) -> derivative, which
            only the reference can serve.
        alpha: sharpness of the surrogate, or the pair (alpha, beta) for a surrogate with two parameters.
        return_v: also return the membrane potential before reset, h, for every step.
        backend: "auto", "native", "triton" or "reference".

    tau, v_threshold and v_reset may be tensors, with a gradient: one value, or [C] with one value per channel (dim 2 of
    x_seq). Their values are not checked, and are used in float32.

    Returns:
        (spikes, v_last) or (spikes, v_last, v_seq); spikes [T, B, ...] in x_seq's dtype, 0 or 1;
        v_last [B, ...], the potential after the last reset, in float32; v_seq [T, B, ...] in
        x_seq's dtype. All are differentiable with respect to x_seq, v_init and tensor parameters. Backward
        keeps only x_seq and recomputes h.

    Raises:
        TypeError, ValueError: a bad shape, dtype, device or parameter, named with what was expected.
        RuntimeError: a backend chosen by name cannot serve this tensor.
    """
    neuron = Recurrence.lif(
        tau=tau,
        decay_input=decay_input,
        v_threshold=v_threshold,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
    )
    return run(x_seq, v_init, neuron, return_v, backend)


def run(x_seq: Tensor, v_init: Tensor | None, neuron: Recurrence, return_v: bool, backend: str) -> tuple[Tensor, ...]:
    """`lif` from a neuron: check, choose the backend, permute into memory order, call, and permute back."""
    check_inputs(x_seq, v_init)
    chosen = choose_backend("lif", x_seq, neuron, backend)
    order = layout.memory_order(x_seq)
    inner = 1
    if neuron.coefficients is not None:
        inner = check_coefficients(neuron.coefficients, x_seq, order)
        coefficients = neuron.coefficients.to(torch.promote_types(x_seq.dtype, torch.float32))
        if v_init is None and (coefficients.requires_grad or transforms.active()):  # because rest then has a gradient
            rest = coefficients[4].view(-1, *[1] * (x_seq.dim() - 3)) if coefficients.shape[1] > 1 else coefficients[4]
            v_init = rest.expand(x_seq.shape[1:])
        neuron = neuron._replace(coefficients=coefficients)
    x = layout.to_memory_order(x_seq, order)
    v_init = layout.state_to_memory_order(v_init, x.dtype, order)
    outputs: Any
    if chosen == "reference":
        outputs = lif_reference(x, v_init, neuron, return_v, inner)
    else:
        outputs = CALL[chosen](x, v_init, neuron.coefficients, inner, *neuron.scalars(), return_v)
    return layout.neuron_outputs(outputs, order, return_v)


def choose_backend(operator: str, x_seq: Tensor, neuron: Recurrence, backend: str) -> str:
    """Return the backend that serves `operator` on this input. Only the reference serves a surrogate of the user's."""
    chosen = backends.choose(operator, x_seq.device, x_seq.dtype, backend)
    if chosen != "reference" and not isinstance(neuron.surrogate, int):
        raise RuntimeError(
            f"{operator}: backend {chosen!r} cannot serve this call: the surrogate is a function, which only the "
            "reference can run; pass backend='reference', or the name of a surrogate"
        )
    return chosen


def check_coefficients(coefficients: Tensor, x_seq: Tensor, order: list[int] | None) -> int:
    """Return the distance in memory between channels of x_seq; 1 if all neurons share their coefficients."""
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
