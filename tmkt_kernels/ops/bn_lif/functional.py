"""Batch normalisation and the leaky integrate-and-fire neuron as one operator."""

import math
from typing import Any

import torch
from torch import Tensor

from ... import surrogate as sg
from .. import arguments, layout, library
from ..lif.functional import check_inputs, choose_backend
from ..lif.recurrence import Recurrence, Shape
from . import op
from .reference import BatchNorm, average_pool, bn_lif_reference

CALL = library.register("bn_lif", op)
"""The operator, by backend."""


def bn_lif(
    x_seq: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    v_init: Tensor | None = None,
    *,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    eps: float = 1e-5,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: Shape = 2.0,
    pool: int = 1,
    return_v: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Batch-normalise over steps, samples and space, and run the neurons of `lif` on the result.

    Per channel, the neuron's current is (x - mean) weight / sqrt(var + eps) + bias (Ioffe and Szegedy, 2015,
    arXiv 1502.03167), with the statistics over T and B together, as in threshold-dependent batch norm.

    Args:
        x_seq: [T, B, C, ...], dtypes and layouts as for `lif` (float64: reference only).
        weight, bias: [C] in float32, or None for 1 and 0; halves are widened, and float64 goes with a float64 x_seq.
        v_init: membrane potential before the first step, [B, C, ...]; None starts at rest.
        mean, var: statistics to use, [C], dtypes as for weight, treated as constants; None uses the statistics of the
            batch, and differentiates through them.
        eps: added to the variance, 0 or more.
        tau, decay_input, v_threshold, v_reset, detach_reset, surrogate, alpha: the neuron's, as for `lif`; floats only.
        pool: 2 returns the spikes' averages over 2x2 pixels instead, [T, B, C, H // 2, W // 2]; an odd last row or
            column is left out, as by nn.AvgPool2d(2). One operator if x_seq [T, B, C, H, W] is contiguous; in any
            other layout, and on the reference, torch pools afterwards. 1: no pooling.
        return_v: also return the membrane potential before reset.
        backend: "auto", "native", "triton" or "reference".

    Returns:
        (spikes, v_last, batch_mean, batch_var), or with v_seq after v_last; shapes and dtypes as those of `lif`;
        batch_mean and batch_var (biased) [C] in float32, empty if mean and var are given, 0 for an empty batch, without
        gradient. The others are differentiable with respect to x_seq, weight, bias and v_init. Backward keeps only
        x_seq, and recomputes the current and h.

    Raises:
        TypeError, ValueError: a bad shape, dtype, device or parameter, named with what was expected.
        RuntimeError: a backend chosen by name cannot serve this tensor.
    """
    neuron = fixed_lif(
        tau=tau,
        decay_input=decay_input,
        v_threshold=v_threshold,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
    )
    norm = BatchNorm(weight, bias, mean, var, eps)
    return run(x_seq, v_init, norm, neuron, return_v, backend, pool)


def fixed_lif(**keywords: Any) -> Recurrence:
    """`Recurrence.lif` of keywords that are not tensors, because a neuron behind a batch norm learns no parameters.

    Raises:
        TypeError, ValueError: a tensor among them, or as `Recurrence.lif`.
    """
    for name, value in keywords.items():
        if isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a float, got Tensor; use nn.BatchNorm and tmkt_kernels.nn.LIF apart for tensors"
            )
    return Recurrence.lif(**keywords)


def run(
    x_seq: Tensor,
    v_init: Tensor | None,
    norm: BatchNorm,
    neuron: Recurrence,
    return_v: bool,
    backend: str,
    pool: int = 1,
) -> tuple[Tensor, ...]:
    """`bn_lif` from a batch norm and a neuron: check, permute into memory order, call, and permute back."""
    check_inputs(x_seq, v_init)
    norm = checked_norm(norm, x_seq)
    if pool not in (1, 2) or (pool == 2 and (x_seq.dim() != 5 or min(x_seq.shape[3:]) < 2)):
        raise ValueError(
            "pool: expected 1, or 2 with x_seq [T, B, C, H, W] of at least 2x2 pixels; "
            f"got {pool} with shape {tuple(x_seq.shape)}"
        )
    if neuron.coefficients is not None:
        raise TypeError("neuron: expected parameters that are floats behind a batch norm, got tensors; use lif")
    chosen = choose_backend("bn_lif", x_seq, neuron, backend)
    order = layout.memory_order(x_seq)
    channels, inner = x_seq.shape[2], layout.channel_stride(x_seq.shape, order)
    x = layout.to_memory_order(x_seq, order)
    v_init = layout.state_to_memory_order(v_init, x.dtype, order)
    pool_width = x_seq.shape[4] if pool == 2 and order is None and chosen != "reference" else 0
    outputs: Any
    if chosen == "reference":
        outputs = bn_lif_reference(x, v_init, norm, channels, inner, neuron, return_v)
    else:
        *vectors, eps = norm
        outputs = CALL[chosen](x, v_init, *vectors, channels, inner, pool_width, eps, *neuron.scalars(), return_v)
    *fired, mean, var = outputs
    spikes, *potentials = layout.neuron_outputs(fired, order, return_v)
    if pool == 2 and pool_width == 0:
        spikes = average_pool(spikes)
    return spikes, *potentials, mean, var


def checked_norm(norm: BatchNorm, x_seq: Tensor) -> BatchNorm:
    """Return the batch norm with its vectors in the form that the kernels take.

    Raises:
        TypeError, ValueError: it does not fit x_seq, or the batch is too small for statistics.
    """
    if x_seq.dim() < 3:
        raise ValueError(f"x_seq: expected [T, B, C, ...], got shape {tuple(x_seq.shape)}")
    weight, bias, mean, var, eps = norm
    if (mean is None) != (var is None):
        raise ValueError("mean and var: expected both, or none to use those of the batch")
    vectors = {"weight": weight, "bias": bias, "mean": mean, "var": var}
    vectors = {name: of_channels(name, vector, x_seq) for name, vector in vectors.items()}
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps: expected a finite float of 0 or more, got {eps}")
    if mean is None and x_seq.numel() == x_seq.shape[2] > 0:
        raise ValueError(f"x_seq: expected more than 1 value per channel in training, got shape {tuple(x_seq.shape)}")
    return BatchNorm(**vectors, eps=eps)


def of_channels(name: str, vector: Tensor | None, x_seq: Tensor) -> Tensor | None:
    """Return a vector [C] in the form that the kernels take: contiguous, in the dtype of the arithmetic on x_seq."""
    if vector is None:
        return None
    arguments.floating(name, vector, "[C]")
    channels, compute = x_seq.shape[2], torch.promote_types(x_seq.dtype, torch.float32)
    if vector.shape != (channels,) or vector.device != x_seq.device:
        raise ValueError(
            f"{name}: expected [{channels}], one value for each channel, on {x_seq.device}; "
            f"got shape {tuple(vector.shape)} on {vector.device}"
        )
    if torch.promote_types(vector.dtype, compute) != compute:
        raise TypeError(
            f"{name}: expected {compute} or narrower with x_seq in {x_seq.dtype}, got {vector.dtype}; "
            "call .double() on x_seq too, or .float() on the layer"
        )
    return vector.to(compute).contiguous()
