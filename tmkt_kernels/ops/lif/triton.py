"""LIF in Triton, on x of shape [T, N]: a thread owns its neurons and runs all T steps, forward and backward.

T is a runtime value: time is walked in chunks of CHUNK steps, a chunk's loads all issued before the first use.
Backward keeps nothing but x: it recomputes h, whose CHUNK values live in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate_triton import surrogate_derivative
from ..triton_common import where_also
from .reference import Reset

HARD = tl.constexpr(int(Reset.HARD))
SOFT = tl.constexpr(int(Reset.SOFT))
DELAYED_SUBTRACT = tl.constexpr(int(Reset.DELAYED_SUBTRACT))
DELAYED_ZERO = tl.constexpr(int(Reset.DELAYED_ZERO))

MAX_CHUNK = 16  # h of a chunk takes 16 x 4 registers a thread; twice that would spill
GROUP = tl.constexpr(4)  # steps of gradient that backward loads at once; a whole chunk's would cost 48 more registers
NUM_WARPS = 2  # 32 programs of 64 threads fill an SM of sm_80 or sm_90, and small layers reach more SMs than with 128
# Fusion would turn a*v + b*x + c into FMAs, whose single rounding flips spikes against the reference.
LAUNCH_FWD = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
# Left to itself, ptxas spills a value or two of backward to squeeze one more program onto an SM.
LAUNCH_BWD = {**LAUNCH_FWD, "maxnreg": 255}


@triton.jit
def fires(h, v_threshold, RESET: tl.constexpr):
    """snnTorch's neurons, with the delayed resets, fire above the threshold only."""
    return h > v_threshold if RESET >= DELAYED_SUBTRACT else h - v_threshold >= 0


@triton.jit
def reset(h, v_threshold, v_reset, RESET: tl.constexpr):
    """v after the step: h itself where the reset is delayed."""
    if RESET == HARD:
        return tl.where(fires(h, v_threshold, RESET), v_reset, h)
    if RESET == SOFT:
        return tl.where(fires(h, v_threshold, RESET), h - v_threshold, h)
    return h


@triton.jit
def lif_step(v, x, a, b, c, v_threshold, v_reset, RESET: tl.constexpr):
    """(v[t-1], x[t]) -> (v[t], h[t]); mirrors reference.py, in its order of rounding."""
    r = fires(v, v_threshold, RESET)
    if RESET == DELAYED_ZERO:
        v = tl.where(r, 0.0, v)
    h = a * v + b * x.to(tl.float32) + c
    if RESET == DELAYED_SUBTRACT:
        h = tl.where(r, h - v_threshold, h)
    return reset(h, v_threshold, v_reset, RESET), h


@triton.jit
def lif_step_adjoint(
    h, grad_v, v_threshold, v_reset, alpha, beta, SURROGATE: tl.constexpr, RESET: tl.constexpr, DETACH: tl.constexpr
):
    """(h[t], gradient of v[t]) -> (gradient of h[t] through v[t], ds/dh)."""
    ds_dh = surrogate_derivative(h - v_threshold, alpha, beta, SURROGATE)
    through_v = grad_v
    if RESET == HARD:
        through_v = tl.where(fires(h, v_threshold, RESET), 0.0, grad_v)
        if not DETACH:
            through_v += grad_v * ((v_reset - h) * ds_dh)
    elif RESET == SOFT:
        if not DETACH:
            through_v += grad_v * (-v_threshold * ds_dh)
    return through_v, ds_dh


@triton.jit
def before_step(b_h, first, k: tl.constexpr, v_threshold, v_reset, RESET: tl.constexpr):
    """v before step k of a chunk, whose v was `first` and whose h are b_h."""
    if k > 0:  # noqa: SIM108 (Triton would evaluate both sides, and there is no b_h[-1])
        v = reset(b_h[k - 1], v_threshold, v_reset, RESET)
    else:
        v = first
    return v


@triton.jit
def charge_adjoint(v, grad_h, a, v_threshold, RESET: tl.constexpr):
    """Gradient of v before a step, given that of h: none where a delayed reset has put v to 0."""
    g = a * grad_h
    if RESET == DELAYED_ZERO:
        g = tl.where(fires(v, v_threshold, RESET), 0.0, g)
    return g


@triton.jit
def neurons(N, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """This program's offsets and mask, and N in int64: T * N may pass 2^31."""
    N = N.to(tl.int64) // VEC * VEC  # unchanged, but now the compiler knows that every row is aligned
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    return N, o_n, o_n < N


@triton.jit
def parameters(coefficients_ptr, channels, inner, a, b, c, v_threshold, v_reset, o_n, m_n):
    """a, b, c, v_threshold, v_reset: the scalars, or each neuron's own from [5, channels]."""
    if coefficients_ptr is not None:
        p = coefficients_ptr + o_n // inner % channels
        a = tl.load(p, mask=m_n, other=0)
        b = tl.load(p + channels, mask=m_n, other=0)
        c = tl.load(p + 2 * channels, mask=m_n, other=0)
        v_threshold = tl.load(p + 3 * channels, mask=m_n, other=0)
        v_reset = tl.load(p + 4 * channels, mask=m_n, other=0)
    return a, b, c, v_threshold, v_reset


@triton.jit
def rest(v_init_ptr, v_reset, o_n, m_n, BLOCK: tl.constexpr):
    """v before the first step."""
    v = tl.zeros([BLOCK], tl.float32)
    if v_init_ptr is not None:
        v = tl.load(v_init_ptr + o_n, mask=m_n, other=0).to(tl.float32)
    else:
        v += v_reset
    return v


@triton.jit
def load_steps(ptr, t0, T, N, o_n, m_n, STEPS: tl.constexpr):
    """Steps t0 .. t0 + STEPS of a [T, N] tensor as a tuple, zeros past T."""
    p_t = ptr + t0 * N + o_n
    steps = ()
    for k in tl.static_range(STEPS):
        steps = steps + (tl.load(p_t, mask=where_also(m_n, t0 + k < T), other=0),)
        p_t += N  # one address moved along, where an address a step would cost two registers each
    return steps


@triton.jit(do_not_specialize=["T", "N", "channels", "inner"])
def lif_fwd_kernel(
    x_ptr,
    v_init_ptr,
    coefficients_ptr,
    spikes_ptr,
    v_last_ptr,
    v_seq_ptr,
    T,
    N,
    channels,
    inner,
    a,
    b,
    c,
    v_threshold,
    v_reset,
    RESET: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n = neurons(N, BLOCK, VEC)
    a, b, c, v_threshold, v_reset = parameters(
        coefficients_ptr, channels, inner, a, b, c, v_threshold, v_reset, o_n, m_n
    )
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        o_t = t0 * N + o_n
        for k in tl.static_range(CHUNK):
            m_t = m_n & (o_t < T * N)  # t < T; written so, no predicate stays alive from the loads to here
            v_next, h = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset, RESET)
            s = tl.where(fires(h, v_threshold, RESET), 1.0, 0.0)
            v = tl.where(t0 + k < T, v_next, v)
            tl.store(spikes_ptr + o_t, s.to(spikes_ptr.dtype.element_ty), mask=m_t)
            if v_seq_ptr is not None:
                tl.store(v_seq_ptr + o_t, h.to(v_seq_ptr.dtype.element_ty), mask=m_t)
            o_t += N
    tl.store(v_last_ptr + o_n, v, mask=m_n)


@triton.jit(do_not_specialize=["T", "N", "channels", "inner"])
def lif_bwd_kernel(
    grad_spikes_ptr,
    grad_v_last_ptr,
    grad_v_seq_ptr,
    x_ptr,
    v_init_ptr,
    coefficients_ptr,
    v_chunk_ptr,  # scratch [ceil(T / CHUNK) - 1, N], None where one chunk holds all of T
    grad_x_ptr,
    grad_v_init_ptr,
    grad_coefficients_ptr,  # [5, N], of each neuron
    T,
    N,
    channels,
    inner,
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
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n = neurons(N, BLOCK, VEC)
    a, b, c, v_threshold, v_reset = parameters(
        coefficients_ptr, channels, inner, a, b, c, v_threshold, v_reset, o_n, m_n
    )
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    last = (T - 1) // CHUNK
    if v_chunk_ptr is not None:
        for i in range(last):
            tl.store(v_chunk_ptr + i * N + o_n, v, mask=m_n)
            b_x = load_steps(x_ptr, i * CHUNK, T, N, o_n, m_n, CHUNK)
            for k in tl.static_range(CHUNK):
                v, _ = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset, RESET)
        tl.debug_barrier()  # below, another thread may read what this one stored

    b_gv = tl.zeros([BLOCK], tl.float32)
    if grad_v_last_ptr is not None:
        b_gv = tl.load(grad_v_last_ptr + o_n, mask=m_n, other=0)
    if grad_coefficients_ptr is not None:
        g_a = tl.zeros([BLOCK], tl.float32)
        g_b = tl.zeros([BLOCK], tl.float32)
        g_c = tl.zeros([BLOCK], tl.float32)
        g_threshold = tl.zeros([BLOCK], tl.float32)
        g_reset = tl.zeros([BLOCK], tl.float32)
    for i in range(last, -1, -1):
        t0 = i * CHUNK
        if v_chunk_ptr is not None:
            if i < last:  # the last chunk's v is at hand
                v = tl.load(v_chunk_ptr + i * N + o_n, mask=m_n, other=0)
        first = v
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        b_h = ()
        for k in tl.static_range(CHUNK):
            v, h = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset, RESET)
            b_h = b_h + (h,)
        o_t = (t0 + CHUNK - 1) * N + o_n
        for k0 in tl.static_range(CHUNK - GROUP, -1, -GROUP):
            if grad_spikes_ptr is not None:
                b_gs = load_steps(grad_spikes_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            if grad_v_seq_ptr is not None:
                b_gh = load_steps(grad_v_seq_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            for k in tl.static_range(GROUP - 1, -1, -1):
                m_t = m_n & (o_t < T * N)
                h = b_h[k0 + k]
                gh, ds_dh = lif_step_adjoint(h, b_gv, v_threshold, v_reset, alpha, beta, SURROGATE, RESET, DETACH_RESET)
                if grad_spikes_ptr is not None:
                    gu = b_gs[k].to(tl.float32) * ds_dh
                    gh += gu
                if grad_v_seq_ptr is not None:
                    gh += b_gh[k].to(tl.float32)
                tl.store(grad_x_ptr + o_t, (b * gh).to(grad_x_ptr.dtype.element_ty), mask=m_t)
                o_t -= N
                before = before_step(b_h, first, k0 + k, v_threshold, v_reset, RESET)
                g_v = charge_adjoint(before, gh, a, v_threshold, RESET)
                valid = t0 + k0 + k < T
                if grad_coefficients_ptr is not None:
                    r = fires(before, v_threshold, RESET)
                    if RESET == DELAYED_ZERO:
                        before = tl.where(r, 0.0, before)
                    g_u = -(gu if grad_spikes_ptr is not None else tl.zeros([BLOCK], tl.float32))
                    s = fires(h, v_threshold, RESET)
                    if RESET == HARD:
                        g_reset += tl.where(valid & s, b_gv, 0.0)
                        if not DETACH_RESET:
                            g_u -= b_gv * ((v_reset - h) * ds_dh)
                    elif RESET == SOFT:
                        g_u -= tl.where(s, b_gv, 0.0)
                        if not DETACH_RESET:
                            g_u += b_gv * (v_threshold * ds_dh)
                    elif RESET == DELAYED_SUBTRACT:
                        g_u -= tl.where(r, gh, 0.0)
                    g_a += tl.where(valid, gh * before, 0.0)
                    g_b += tl.where(valid, gh * b_x[k0 + k].to(tl.float32), 0.0)
                    g_c += tl.where(valid, gh, 0.0)
                    g_threshold += tl.where(valid, g_u, 0.0)
                b_gv = tl.where(valid, g_v, b_gv)
    if grad_v_init_ptr is not None:
        tl.store(grad_v_init_ptr + o_n, b_gv, mask=m_n)
    if grad_coefficients_ptr is not None:
        tl.store(grad_coefficients_ptr + o_n, g_a, mask=m_n)
        tl.store(grad_coefficients_ptr + N + o_n, g_b, mask=m_n)
        tl.store(grad_coefficients_ptr + 2 * N + o_n, g_c, mask=m_n)
        tl.store(grad_coefficients_ptr + 3 * N + o_n, g_threshold, mask=m_n)
        tl.store(grad_coefficients_ptr + 4 * N + o_n, g_reset, mask=m_n)


def chunk_size(T: int) -> int:
    """Steps held in registers: three kernels serve every T, and a short T computes few steps in vain."""
    return 4 if T <= 4 else 8 if T <= 8 else MAX_CHUNK


def block_sizes(N: int, vec: int) -> dict[str, int]:
    """`vec` neurons a thread, loaded as one vector; a single neuron where N leaves later steps unaligned.

    N and T are not specialised by Triton, so these are the only two variants: no recompilation for a new size.
    """
    vec = vec if N % vec == 0 else 1
    return {"BLOCK": 32 * NUM_WARPS * vec, "VEC": vec}


def lif_fwd(
    x: Tensor,
    v_init: Tensor | None,
    coefficients: Tensor | None,
    inner: int,
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
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, ...] -> spikes [T, ...], v_last [...], v_seq [T, ...] or empty."""
    T, N = x.shape[0], x[0].numel()
    spikes, v_last = torch.empty_like(x), x.new_empty(x.shape[1:], dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    if N == 0:
        return spikes, v_last, v_seq
    sizes = block_sizes(N, 16 // x.element_size())
    with torch.cuda.device_of(x):
        lif_fwd_kernel[(triton.cdiv(N, sizes["BLOCK"]),)](
            x,
            v_init,
            coefficients,
            spikes,
            v_last,
            v_seq if return_v else None,
            T,
            N,
            1 if coefficients is None else coefficients.shape[1],
            inner,
            a,
            b,
            c,
            v_threshold,
            v_reset,
            RESET=reset,
            CHUNK=chunk_size(T),
            **sizes,
            **LAUNCH_FWD,
        )
    return spikes, v_last, v_seq


def lif_bwd(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    x: Tensor,
    v_init: Tensor | None,
    coefficients: Tensor | None,
    inner: int,
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
    need_coefficients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [T, ...], of v_init [...] or empty, and of each neuron's coefficients [5, N] or [5, 0].

    An output gradient that is None counts as zeros and is not read.
    """
    T, N = x.shape[0], x[0].numel()
    grad_x = torch.empty_like(x)
    grad_v_init = x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init)
    grad_coefficients = x.new_empty((5, N if need_coefficients else 0), dtype=torch.float32)
    if N == 0:
        return grad_x, grad_v_init, grad_coefficients
    # In fp32 16 bytes; 8 half values would be too many registers, and so are 4 with five sums for each.
    sizes, chunk = block_sizes(N, 2 if need_coefficients else 4), chunk_size(T)
    kept = (T - 1) // chunk
    v_chunk = x.new_empty((kept, N), dtype=torch.float32) if kept else None
    with torch.cuda.device_of(x):
        lif_bwd_kernel[(triton.cdiv(N, sizes["BLOCK"]),)](
            grad_spikes,
            grad_v_last,
            grad_v_seq,
            x,
            v_init,
            coefficients,
            v_chunk,
            grad_x,
            None if v_init is None else grad_v_init,
            grad_coefficients if need_coefficients else None,
            T,
            N,
            1 if coefficients is None else coefficients.shape[1],
            inner,
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
            CHUNK=chunk,
            **sizes,
            **LAUNCH_BWD,
        )
    return grad_x, grad_v_init, grad_coefficients
