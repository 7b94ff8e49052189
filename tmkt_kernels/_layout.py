"""Dense layouts without copies: any [T, ...] tensor whose steps are dense becomes [T, N] by views alone."""

import torch
from torch import Tensor


def memory_order(x_seq: Tensor) -> list[int]:
    """The dims of a [T, ...] tensor with T first and the others from the largest stride to the smallest."""
    if x_seq.is_contiguous():
        return list(range(x_seq.dim()))
    if x_seq.dim() == 5 and x_seq.permute(0, 1, 3, 4, 2).is_contiguous():  # channels_last steps
        return [0, 1, 3, 4, 2]
    order = sorted(range(1, x_seq.dim()), key=x_seq.stride, reverse=True)
    return [0, *order]


def to_steps(x: Tensor, order: list[int]) -> Tensor:
    """[T, ...] -> contiguous [T, N], elements of a step in `order`: a view where memory allows, else one copy."""
    return x.permute(order).contiguous().flatten(1)


def from_steps(flat: Tensor, shape: torch.Size, order: list[int]) -> Tensor:
    """Inverse of `to_steps`, always a view: [T, N] -> `shape`, laid out in memory in `order`."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return flat.view([shape[d] for d in order]).permute(inverse)
