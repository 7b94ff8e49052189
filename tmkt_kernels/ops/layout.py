"""Dense layouts without copies: a permutation alone makes any [T, ...] tensor with dense steps contiguous."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CHANNEL_DIM = 2


def memory_order(x_seq: Tensor) -> list[int] | None:
    """Return the dims of a [T, ...] tensor, T first and the others from the largest stride to the smallest; None if
    they are in that order."""
    if x_seq.is_contiguous():
        return None
    if x_seq.dim() == 5 and x_seq.permute(0, 1, 3, 4, 2).is_contiguous():  # channels_last steps
        return [0, 1, 3, 4, 2]
    order: list[int] = []
    for dim in range(1, x_seq.dim()):  # insertion sort, because torch.compile can compare symbols but not sort them
        at = len(order)
        while at > 0 and x_seq.stride(order[at - 1]) < x_seq.stride(dim):
            at -= 1
        order.insert(at, dim)
    return [0, *order]


def to_memory_order(x: Tensor, order: list[int] | None) -> Tensor:
    """[T, ...] -> contiguous, dims in `order`: a view if the layout allows, else one copy."""
    return (x if order is None else x.permute(order)).contiguous()


def from_memory_order(x: Tensor, order: list[int] | None) -> Tensor:
    """Inverse of `to_memory_order`, always a view."""
    return x if order is None else x.permute(sorted(range(len(order)), key=order.__getitem__))


def state_to_memory_order(v: Tensor | None, dtype: torch.dtype, order: list[int] | None) -> Tensor | None:
    """Return a state [B, ...] laid out as one step of x in `order`, in the dtype of the arithmetic on x of `dtype`."""
    if v is None:
        return None
    v = v.to(torch.promote_types(dtype, torch.float32))
    return v.contiguous() if order is None else to_memory_order(v[None], order)[0]


def neuron_outputs(outputs: Sequence[Tensor], order: list[int] | None, return_v: bool) -> tuple[Tensor, ...]:
    """(spikes, v_last, v_seq) of an operator -> the same in the dims of x, without v_seq unless `return_v`."""
    spikes, v_last, v_seq = outputs
    if order is not None:
        spikes, v_last = from_memory_order(spikes, order), from_memory_order(v_last[None], order)[0]
        v_seq = from_memory_order(v_seq, order) if return_v else v_seq
    return (spikes, v_last, v_seq) if return_v else (spikes, v_last)


def channel_stride(shape: torch.Size, order: list[int] | None) -> int:
    """Return the elements between neighbouring channels (dim 2) in a step of `shape` whose memory is in `order`."""
    dims = list(range(len(shape))) if order is None else order
    return math.prod([shape[d] for d in dims[dims.index(CHANNEL_DIM) + 1 :]])
