"""Definition of bn_lif: batch normalisation over T, B and space, then the neuron of lif/reference.py.

current = (x - mean) * (weight / sqrt(var + eps)) + bias, per channel, rounded in this order.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..lif.recurrence import Recurrence
from ..lif.reference import lif_reference


class BatchNorm(NamedTuple):
    """A batch norm as one value; vectors [channels]. None for weight and bias means 1 and 0, None for mean and var
    those of the batch."""

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    eps: float


def bn_lif_reference(
    x: Tensor,
    v_init: Tensor | None,
    norm: BatchNorm,
    channels: int,
    inner: int,
    neuron: Recurrence,
    return_v: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """x [T, ...], where neuron n of a step is in channel n // inner % channels -> spikes, v_last, v_seq, and the
    batch's mean and biased variance [channels], which have no gradient and are empty if mean and var are given.

    Statistics are in fp64, everything else in fp32, or in fp64 for an fp64 input. Those of an empty batch are 0.
    """
    weight, bias, mean, var, eps = norm
    compute = torch.promote_types(x.dtype, torch.float32)
    samples = x[0].numel() // max(channels * inner, 1)
    planes = x.to(compute).reshape(x.shape[0], samples, channels, inner)
    batch_mean = batch_var = planes.new_empty((0,))
    if (mean is None or var is None) and x.numel() == 0:
        mean = var = batch_mean = batch_var = planes.new_zeros((channels,))
    elif mean is None or var is None:
        batch_var, batch_mean = (s.to(compute) for s in torch.var_mean(planes.double(), dim=(0, 1, 3), correction=0))
        mean, var = batch_mean, batch_var

    def spread(values: Tensor) -> Tensor:
        return values.to(compute).view(1, 1, channels, 1)

    scale = (1.0 if weight is None else weight) / torch.sqrt(var + eps)
    current = (planes - spread(mean)) * spread(scale) + (0.0 if bias is None else spread(bias))
    spikes, v_last, v_seq = lif_reference(current.view(x.shape), v_init, neuron, return_v)
    v_seq = None if v_seq is None else v_seq.to(x.dtype)
    return spikes.to(x.dtype), v_last, v_seq, batch_mean.detach(), batch_var.detach()


def average_pool(spikes: Tensor) -> Tensor:
    """2x2 averages over space: [T, B, C, H, W] -> [T, B, C, H // 2, W // 2]."""
    pooled = torch.nn.functional.avg_pool2d(spikes.flatten(0, 1), 2)
    return pooled.view(*spikes.shape[:2], *pooled.shape[1:])
