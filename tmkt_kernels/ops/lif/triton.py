"""lif in Triton: the scan of a neuron of the lif family, without a batch norm."""

from typing import Any

import torch
from torch import Tensor

from ..scan_launch_triton import Layout, scan_backward, scan_forward
from ..scan_values import Gradients, Outputs, Results
from .neuron_triton import backward_neuron, forward_neuron
from .recurrence import Recurrence


def layout_of(neuron: Recurrence, inner: int) -> Layout:
    return Layout() if neuron.coefficients is None else Layout(neuron.coefficients.shape[1], inner)


def lif_fwd(
    x: Tensor, v_init: Tensor | None, neuron: Recurrence, inner: int, return_v: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, ...] -> spikes [T, ...], v_last [...], v_seq [T, ...] or empty."""
    spikes, v_last = torch.empty_like(x), x.new_empty(x.shape[1:], dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    if x.numel() > 0:
        outputs = Outputs(spikes, v_last, v_seq if return_v else None)
        scan_forward(x, v_init, None, forward_neuron(neuron), layout_of(neuron, inner), outputs)
    return spikes, v_last, v_seq


def lif_bwd(
    grads: tuple[Tensor | None, ...],
    x: Tensor,
    v_init: Tensor | None,
    neuron: Recurrence,
    inner: int,
    need_coefficients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [T, ...], of v_init [...] or empty, and of each neuron's coefficients [5, N] or [5, 0].

    `grads` are those of spikes, v_last and v_seq; None counts as zeros and is not read.
    """
    grad_x = torch.empty_like(x)
    grad_v_init = x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init)
    each = x.new_empty((5, x[0].numel() if need_coefficients else 0), dtype=torch.float32)
    if x.numel() > 0:
        results = Results(grad_x, None if v_init is None else grad_v_init, each if need_coefficients else None, None)
        scan_backward(Gradients(*grads), x, v_init, None, backward_neuron(neuron), layout_of(neuron, inner), results)
    return grad_x, grad_v_init, each


def forward(*args: Any) -> tuple[Tensor, ...]:
    x, v_init, coefficients, inner, *scalars, return_v = args
    return lif_fwd(x, v_init, Recurrence.of(scalars, coefficients), inner, return_v)


def backward(*args: Any) -> tuple[Tensor, ...]:
    *grads, x, v_init, coefficients, inner = args[:7]
    return lif_bwd(tuple(grads), x, v_init, Recurrence.of(args[7:-1], coefficients), inner, args[-1])
