"""Outputs of bn_lif as every backend allocates them."""

import torch
from torch import Tensor


def new_spikes(x: Tensor, pool_width: int) -> Tensor:
    """Return uninitialised spikes of x; with pooling x is [T, B, C, H, W] and they are [T, B, C, H // 2, W // 2]."""
    if pool_width == 0:
        return torch.empty_like(x)
    return x.new_empty((*x.shape[:3], x.shape[3] // 2, x.shape[4] // 2))
