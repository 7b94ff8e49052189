"""bn_lif in Triton, on contiguous x of shape [T, ...]: the scan of the neuron behind a batch norm.

Forward first computes the moments of each neuron over T. Through statistics of the batch, backward runs twice: once for
each neuron's sums over t, then for the gradient of x, which needs the sums of all neurons. torch reduces arrays [N] or
[channels], in a fixed order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..lif.neuron_triton import backward_neuron, forward_neuron
from ..lif.recurrence import Recurrence
from ..scan_launch_triton import LAUNCH_FWD, Layout, block_sizes, chunk_size, scan_backward, scan_forward
from ..scan_triton import load_steps, neurons
from ..scan_values import Gradients, Norm, Outputs, Results, Statistics
from .op import backward_arguments, forward_arguments
from .outputs import new_spikes
from .reference import BatchNorm


@triton.jit(do_not_specialize=["T", "N", "channels", "inner"])
def moments_kernel(
    x_ptr, moments_ptr, T, N, channels, inner, CHUNK: tl.constexpr, BLOCK: tl.constexpr, VEC: tl.constexpr
):
    """Mean over t per neuron, relative to the channel's first value, and squared deviations from the mean."""
    N, o_n, m_n = neurons(N, BLOCK, VEC)
    first = tl.load(x_ptr + o_n, mask=m_n, other=0).to(tl.float32)
    pivot = tl.load(x_ptr + o_n // inner % channels * inner, mask=m_n, other=0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        for k in tl.static_range(CHUNK):
            d = tl.where(t0 + k < T, b_x[k].to(tl.float32) - first, 0.0)
            total += d
            squares += d * d
    mean = total / T
    tl.store(moments_ptr + o_n, (first - pivot) + mean, mask=m_n)
    tl.store(moments_ptr + N + o_n, squares - total * mean, mask=m_n)


def by_channel(values: Tensor, channels: int, inner: int) -> Tensor:
    """[k, N] -> [k, samples, channels, inner] in float64."""
    return values.double().view(values.shape[0], -1, channels, inner)


def statistics(x: Tensor, channels: int, inner: int) -> tuple[Tensor, Tensor]:
    """Return the mean and biased variance of each channel of the batch."""
    T, N = x.shape[0], x[0].numel()
    moments = x.new_empty((2, N), dtype=torch.float32)
    sizes = block_sizes(N, 16 // x.element_size())
    with torch.cuda.device_of(x):
        moments_kernel[(triton.cdiv(N, sizes["BLOCK"]),)](
            x, moments, T, N, channels, inner, CHUNK=chunk_size(T), **sizes, **LAUNCH_FWD
        )
    means, squares = by_channel(moments, channels, inner)
    between, center = torch.var_mean(means, dim=(0, 2), correction=0)
    pivots = x.view(-1, inner)[:channels, 0].double()
    return (pivots + center).float(), (squares.mean((0, 2)) / T + between).float()


def scale_of(var: Tensor, norm: BatchNorm) -> Tensor:
    return (1.0 if norm.weight is None else norm.weight) / torch.sqrt(var + norm.eps)


def norm_of(norm: BatchNorm, mean: Tensor, var: Tensor) -> Norm:
    return Norm(mean, scale_of(var, norm), torch.zeros_like(mean) if norm.bias is None else norm.bias)


def bn_lif_fwd(
    x: Tensor, v_init: Tensor | None, norm: BatchNorm, neuron: Recurrence, layout: Layout, return_v: bool
) -> tuple[Tensor, ...]:
    """x [T, ...] -> spikes [T, ...], v_last [...], v_seq [T, ...] or empty, and the batch's mean and variance."""
    spikes, v_last = new_spikes(x, layout.pool_width), x.new_empty(x.shape[1:], dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    own = layout.channels if norm.mean is None else 0
    batch = x.new_empty((own,), dtype=torch.float32), x.new_empty((own,), dtype=torch.float32)
    if x.numel() == 0:
        return spikes, v_last, v_seq, *map(torch.zeros_like, batch)  # no value, no statistics
    mean, var = norm.mean, norm.var
    if mean is None or var is None:
        mean, var = batch = statistics(x, layout.channels, layout.inner)
    outputs = Outputs(spikes, v_last, v_seq if return_v else None)
    scan_forward(x, v_init, norm_of(norm, mean, var), forward_neuron(neuron), layout, outputs)
    return spikes, v_last, v_seq, *batch


def bn_lif_bwd(
    grads: tuple[Tensor | None, ...],
    x: Tensor,
    v_init: Tensor | None,
    norm: BatchNorm,
    neuron: Recurrence,
    layout: Layout,
    batch_statistics: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x [T, ...], of v_init [...] or empty, of weight and of bias [channels].

    The mean and variance of `norm` are those that forward used: the batch's own if `batch_statistics`.
    """
    assert norm.mean is not None
    assert norm.var is not None
    grad_x = torch.empty_like(x)
    grad_v_init = x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init)
    if x.numel() == 0:
        return grad_x, grad_v_init, torch.zeros_like(norm.mean), torch.zeros_like(norm.mean)
    sums = x.new_empty((2, x[0].numel()), dtype=torch.float32)
    of_v_init = None if v_init is None else grad_v_init
    first = Results(None, None, None, sums) if batch_statistics else Results(grad_x, of_v_init, None, sums)
    call = (Gradients(*grads), x, v_init, norm_of(norm, norm.mean, norm.var), backward_neuron(neuron), layout)
    scan_backward(*call, first)
    invstd = scale_of(norm.var, norm._replace(weight=None))
    grad_bias, grad_weight = by_channel(sums, layout.channels, layout.inner).sum((1, 3)).float()
    grad_weight = grad_weight * invstd
    if batch_statistics:
        count = x.numel() // layout.channels
        through = Statistics(grad_bias / count, grad_weight * invstd / count)
        scan_backward(*call, Results(grad_x, of_v_init, None, None), through)
    return grad_x, grad_v_init, grad_weight, grad_bias


def forward(*args: Any) -> tuple[Tensor, ...]:
    (x, v_init, norm, *layout, neuron), return_v = forward_arguments(args)
    return bn_lif_fwd(x, v_init, norm, neuron, Layout(*layout), return_v)


def backward(*args: Any) -> tuple[Tensor, ...]:
    grads, (x, v_init, norm, *layout, neuron), batch_statistics = backward_arguments(args)
    return bn_lif_bwd(grads, x, v_init, norm, neuron, Layout(*layout), batch_statistics)
