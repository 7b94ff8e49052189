"""bn_lif in Triton, on contiguous x of shape [T, ...]: the neuron's step and adjoint are those of lif/triton.py.

Three kernels: moments of each neuron over T, normalise and fire, and the adjoint, with sums over T for each neuron.
Through statistics of the batch it runs twice: first for the sums, then for the gradient of x, which needs those of all
neurons. What is [N] or [channels] is reduced by torch, in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..lif.triton import (
    GROUP,
    LAUNCH_BWD,
    LAUNCH_FWD,
    before_step,
    block_sizes,
    charge_adjoint,
    chunk_size,
    fires,
    lif_step,
    lif_step_adjoint,
    load_steps,
    neurons,
    rest,
)
from .outputs import new_spikes


@triton.jit
def pixels(N, inner, WIDTH, POOL: tl.constexpr, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """N, the offsets of this program's neurons, their mask, and with POOL the 2x2 cell of each and whether it is whole.

    With POOL four neighbouring offsets are the pixels of a cell. A cell that an odd height or width cuts off has its
    pixels twice: they are computed, and stored, twice alike.
    """
    if not POOL:
        N, o_n, m_n = neurons(N, BLOCK, VEC)
        return N, o_n, m_n, o_n, m_n
    N = N.to(tl.int64)
    slot = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    height = inner // WIDTH
    columns = (WIDTH + 1) // 2
    of_plane = (height + 1) // 2 * columns
    cell, corner = slot // 4, slot % 4
    plane, row, column = cell // of_plane, cell % of_plane // columns * 2, cell % columns * 2
    whole = (row + 1 < height) & (column + 1 < WIDTH)
    o_n = plane * inner + tl.minimum(row + corner // 2, height - 1) * WIDTH + tl.minimum(column + corner % 2, WIDTH - 1)
    m_n = plane < N // inner
    o_cell = plane * (height // 2 * (WIDTH // 2)) + row // 2 * (WIDTH // 2) + column // 2
    return N, o_n, m_n, o_cell, m_n & whole


@triton.jit
def pooled_size(N, inner, WIDTH):
    """Values of a step of the pooled spikes."""
    return N // inner * (inner // WIDTH // 2 * (WIDTH // 2))


@triton.jit
def normalisation(mean_ptr, scale_ptr, bias_ptr, channels, inner, o_n, m_n):
    """Mean, scale and bias of each neuron's channel."""
    o_c = o_n // inner % channels
    mean = tl.load(mean_ptr + o_c, mask=m_n, other=0)
    scale = tl.load(scale_ptr + o_c, mask=m_n, other=0)
    bias = tl.load(bias_ptr + o_c, mask=m_n, other=0)
    return mean, scale, bias


@triton.jit
def normalise(x, mean, scale, bias):
    return (x.to(tl.float32) - mean) * scale + bias


@triton.jit(do_not_specialize=["T", "N", "channels", "inner"])
def moments_kernel(
    x_ptr, moments_ptr, T, N, channels, inner, CHUNK: tl.constexpr, BLOCK: tl.constexpr, VEC: tl.constexpr
):
    """Of each neuron its mean over t, minus the channel's first value, and the squared deviations from the mean."""
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


@triton.jit(do_not_specialize=["T", "N", "channels", "inner", "WIDTH"])
def bn_lif_fwd_kernel(
    x_ptr,
    v_init_ptr,
    mean_ptr,
    scale_ptr,
    bias_ptr,
    spikes_ptr,
    v_last_ptr,
    v_seq_ptr,
    T,
    N,
    channels,
    inner,
    WIDTH,
    a,
    b,
    c,
    v_threshold,
    v_reset,
    RESET: tl.constexpr,
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    mean, scale, bias = normalisation(mean_ptr, scale_ptr, bias_ptr, channels, inner, o_n, m_n)
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        o_t = t0 * N + o_n
        for k in tl.static_range(CHUNK):
            m_t = m_n & (o_t < T * N)  # t < T, see lif/triton.py
            v_next, h = lif_step(v, normalise(b_x[k], mean, scale, bias), a, b, c, v_threshold, v_reset, RESET)
            s = tl.where(fires(h, v_threshold, RESET), 1.0, 0.0)
            v = tl.where(t0 + k < T, v_next, v)
            if POOL:
                pooled = tl.sum(tl.reshape(s, [BLOCK // 4, 4]), axis=1) * 0.25
                pooled = tl.reshape(tl.broadcast_to(pooled[:, None], [BLOCK // 4, 4]), [BLOCK])
                p_cell = spikes_ptr + (t0 + k) * pooled_size(N, inner, WIDTH) + o_cell
                tl.store(p_cell, pooled.to(spikes_ptr.dtype.element_ty), mask=m_cell & m_t)
            else:
                tl.store(spikes_ptr + o_t, s.to(spikes_ptr.dtype.element_ty), mask=m_t)
            if v_seq_ptr is not None:
                tl.store(v_seq_ptr + o_t, h.to(v_seq_ptr.dtype.element_ty), mask=m_t)
            o_t += N
    tl.store(v_last_ptr + o_n, v, mask=m_n)


@triton.jit(do_not_specialize=["T", "N", "channels", "inner", "WIDTH"])
def bn_lif_bwd_kernel(
    grad_spikes_ptr,
    grad_v_last_ptr,
    grad_v_seq_ptr,
    x_ptr,
    v_init_ptr,
    mean_ptr,
    scale_ptr,
    bias_ptr,
    v_chunk_ptr,  # scratch [ceil(T / CHUNK) - 1, N], None where one chunk holds all of T
    g_mean_ptr,  # [channels], as slope: what the batch's statistics take off; None where these are given
    slope_ptr,
    grad_x_ptr,  # None: only the sums are wanted
    grad_v_init_ptr,
    sums_ptr,  # [2, N], or None
    T,
    N,
    channels,
    inner,
    WIDTH,
    a,
    b,
    c,
    v_threshold,
    v_reset,
    alpha,
    beta,
    RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """With g the gradient of the current: its sums over t, of g and of g (x - mean), or grad_x = scale (g - g_mean -
    (x - mean) slope), or both."""
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    N_s = N
    if POOL:
        N_s = pooled_size(N, inner, WIDTH)
    mean, scale, bias = normalisation(mean_ptr, scale_ptr, bias_ptr, channels, inner, o_n, m_n)
    if g_mean_ptr is not None:
        o_c = o_n // inner % channels
        g_mean = tl.load(g_mean_ptr + o_c, mask=m_n, other=0)
        slope = tl.load(slope_ptr + o_c, mask=m_n, other=0)
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    last = (T - 1) // CHUNK
    if v_chunk_ptr is not None:
        for i in range(last):
            tl.store(v_chunk_ptr + i * N + o_n, v, mask=m_n)
            b_x = load_steps(x_ptr, i * CHUNK, T, N, o_n, m_n, CHUNK)
            for k in tl.static_range(CHUNK):
                v, _ = lif_step(v, normalise(b_x[k], mean, scale, bias), a, b, c, v_threshold, v_reset, RESET)
        tl.debug_barrier()  # below, another thread may read what this one stored

    b_gv = tl.zeros([BLOCK], tl.float32)
    if grad_v_last_ptr is not None:
        b_gv = tl.load(grad_v_last_ptr + o_n, mask=m_n, other=0)
    g_sum = tl.zeros([BLOCK], tl.float32)
    gd_sum = tl.zeros([BLOCK], tl.float32)
    for i in range(last, -1, -1):
        t0 = i * CHUNK
        if v_chunk_ptr is not None:
            if i < last:  # the last chunk's v is at hand
                v = tl.load(v_chunk_ptr + i * N + o_n, mask=m_n, other=0)
        first = v
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        b_h = ()
        for k in tl.static_range(CHUNK):
            v, h = lif_step(v, normalise(b_x[k], mean, scale, bias), a, b, c, v_threshold, v_reset, RESET)
            b_h = b_h + (h,)
        o_t = (t0 + CHUNK - 1) * N + o_n
        for k0 in tl.static_range(CHUNK - GROUP, -1, -GROUP):
            # x is read again: kept from above, it would take as many registers as h.
            b_again = load_steps(x_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            if grad_spikes_ptr is not None:
                b_gs = load_steps(grad_spikes_ptr, t0 + k0, T, N_s, o_cell, m_cell, GROUP)
            if grad_v_seq_ptr is not None:
                b_gh = load_steps(grad_v_seq_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            for k in tl.static_range(GROUP - 1, -1, -1):
                m_t = m_n & (o_t < T * N)
                gh, ds_dh = lif_step_adjoint(
                    b_h[k0 + k], b_gv, v_threshold, v_reset, alpha, beta, SURROGATE, RESET, DETACH_RESET
                )
                if grad_spikes_ptr is not None:
                    gs = b_gs[k].to(tl.float32)
                    if POOL:
                        gs = gs * 0.25
                    gh += gs * ds_dh
                if grad_v_seq_ptr is not None:
                    gh += b_gh[k].to(tl.float32)
                valid = t0 + k0 + k < T
                g = b * gh
                d = b_again[k].to(tl.float32) - mean
                if sums_ptr is not None:
                    g_sum += tl.where(valid, g, 0.0)
                    gd_sum += tl.where(valid, g * d, 0.0)
                if grad_x_ptr is not None:
                    if g_mean_ptr is not None:
                        g = g - g_mean - d * slope
                    tl.store(grad_x_ptr + o_t, (scale * g).to(grad_x_ptr.dtype.element_ty), mask=m_t)
                o_t -= N
                before = before_step(b_h, first, k0 + k, v_threshold, v_reset, RESET)
                b_gv = tl.where(valid, charge_adjoint(before, gh, a, v_threshold, RESET), b_gv)
    if grad_v_init_ptr is not None:
        tl.store(grad_v_init_ptr + o_n, b_gv, mask=m_n)
    if sums_ptr is not None:
        tl.store(sums_ptr + o_n, g_sum, mask=m_n)
        tl.store(sums_ptr + N + o_n, gd_sum, mask=m_n)


def by_channel(values: Tensor, channels: int, inner: int) -> Tensor:
    """[k, N] -> [k, samples, channels, inner] in float64."""
    return values.double().view(values.shape[0], -1, channels, inner)


def statistics(x: Tensor, channels: int, inner: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of the batch."""
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


def scale_of(var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return (1.0 if weight is None else weight) / torch.sqrt(var + eps)


def launch_sizes(N: int, inner: int, pool_width: int, vec: int) -> tuple[int, dict[str, int]]:
    """Neurons, or with pooling the pixels of all cells, whole or not, and the block sizes."""
    if pool_width == 0:
        return N, block_sizes(N, vec)
    cells = ((inner // pool_width + 1) // 2) * ((pool_width + 1) // 2)
    return 4 * cells * (N // inner), block_sizes(1, 2)  # 2: one neuron a thread


def bn_lif_fwd(
    x: Tensor,
    v_init: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    channels: int,
    inner: int,
    pool_width: int,
    eps: float,
    a: float,
    b: float,
    c: float,
    v_threshold: float,
    v_reset: float,
    reset: int,
    surrogate: int,
    alpha: float,
    beta: float,
    detach_reset: bool,
    return_v: bool,
) -> tuple[Tensor, ...]:
    """x [T, ...] -> spikes [T, ...], v_last [...], v_seq [T, ...] or empty, and the batch's mean and variance."""
    T, N = x.shape[0], x[0].numel()
    spikes, v_last = new_spikes(x, pool_width), x.new_empty(x.shape[1:], dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    own = channels if mean is None else 0
    batch = x.new_empty((own,), dtype=torch.float32), x.new_empty((own,), dtype=torch.float32)
    if N == 0:
        return spikes, v_last, v_seq, *map(torch.zeros_like, batch)  # the statistics of nothing
    if mean is None or var is None:
        mean, var = batch = statistics(x, channels, inner)
    slots, sizes = launch_sizes(N, inner, pool_width, 16 // x.element_size())
    with torch.cuda.device_of(x):
        bn_lif_fwd_kernel[(triton.cdiv(slots, sizes["BLOCK"]),)](
            x,
            v_init,
            mean,
            scale_of(var, weight, eps),
            torch.zeros_like(mean) if bias is None else bias,
            spikes,
            v_last,
            v_seq if return_v else None,
            T,
            N,
            channels,
            inner,
            max(pool_width, 1),
            a,
            b,
            c,
            v_threshold,
            v_reset,
            RESET=reset,
            POOL=pool_width > 0,
            CHUNK=chunk_size(T),
            **sizes,
            **LAUNCH_FWD,
        )
    return spikes, v_last, v_seq, *batch


def bn_lif_bwd(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    x: Tensor,
    v_init: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    batch_statistics: bool,
    channels: int,
    inner: int,
    pool_width: int,
    eps: float,
    a: float,
    b: float,
    c: float,
    v_threshold: float,
    v_reset: float,
    reset: int,
    surrogate: int,
    alpha: float,
    beta: float,
    detach_reset: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x [T, ...], of v_init [...] or empty, of weight and of bias [channels]."""
    T, N = x.shape[0], x[0].numel()
    grad_x = torch.empty_like(x)
    grad_v_init = x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init)
    if N == 0:
        return grad_x, grad_v_init, torch.zeros_like(mean), torch.zeros_like(mean)
    scale = scale_of(var, weight, eps)
    sums = x.new_empty((2, N), dtype=torch.float32)
    chunk = chunk_size(T)
    kept = (T - 1) // chunk
    slots, sizes = launch_sizes(
        N, inner, pool_width, 2 if kept else 4
    )  # the way through several chunks takes registers too
    v_chunk = x.new_empty((kept, N), dtype=torch.float32) if kept else None

    def launch(g_mean: Tensor | None, slope: Tensor | None, grad_x: Tensor | None, sums: Tensor | None) -> None:
        bn_lif_bwd_kernel[(triton.cdiv(slots, sizes["BLOCK"]),)](
            grad_spikes,
            grad_v_last,
            grad_v_seq,
            x,
            v_init,
            mean,
            scale,
            torch.zeros_like(mean) if bias is None else bias,
            v_chunk,
            g_mean,
            slope,
            grad_x,
            None if v_init is None or grad_x is None else grad_v_init,
            sums,
            T,
            N,
            channels,
            inner,
            max(pool_width, 1),
            a,
            b,
            c,
            v_threshold,
            v_reset,
            alpha,
            beta,
            RESET=reset,
            SURROGATE=surrogate,
            DETACH_RESET=detach_reset,
            POOL=pool_width > 0,
            CHUNK=chunk,
            **sizes,
            **LAUNCH_BWD,
        )

    with torch.cuda.device_of(x):
        launch(None, None, None if batch_statistics else grad_x, sums)
        invstd = scale_of(var, None, eps)
        grad_bias, grad_weight = by_channel(sums, channels, inner).sum((1, 3)).float()
        grad_weight = grad_weight * invstd
        if batch_statistics:
            count = x.numel() // channels
            launch(grad_bias / count, grad_weight * invstd / count, grad_x, None)
    return grad_x, grad_v_init, grad_weight, grad_bias
