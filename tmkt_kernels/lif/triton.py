"""LIF in Triton, on x of shape [T, N]: a thread owns its neurons and runs all T steps, forward and backward.

T is a runtime value: time is walked in chunks of CHUNK steps, a chunk's loads all issued before the first use.
Backward keeps nothing but x: it recomputes h, whose CHUNK values live in registers.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate import Surrogate

ATAN = tl.constexpr(int(Surrogate.ATAN))
SIGMOID = tl.constexpr(int(Surrogate.SIGMOID))
TRIANGLE = tl.constexpr(int(Surrogate.TRIANGLE))
RECTANGLE = tl.constexpr(int(Surrogate.RECTANGLE))
HALF_PI = tl.constexpr(math.pi / 2)

MAX_CHUNK = 16  # h of a chunk takes 16 x 4 registers a thread; twice that would spill
GROUP = tl.constexpr(4)  # steps of gradient that backward loads at once; a whole chunk's would cost 48 more registers
NUM_WARPS = 2  # 32 programs of 64 threads fill an SM of sm_80 or sm_90, and small layers reach more SMs than with 128
# Fusion would turn a*v + b*x + c into FMAs, whose single rounding flips spikes against the reference.
LAUNCH_FWD = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
# Left to itself, ptxas spills a value or two of backward to squeeze one more program onto an SM.
LAUNCH_BWD = {**LAUNCH_FWD, "maxnreg": 255}


@triton.jit
def surrogate_derivative(u, alpha, SURROGATE: tl.constexpr):
    """Mirrors surrogate.py."""
    if SURROGATE == ATAN:
        z = (HALF_PI * alpha) * u
        g = (0.5 * alpha) / (1 + z * z)
    elif SURROGATE == SIGMOID:
        e = tl.exp(-tl.abs(alpha * u))
        g = alpha * e / ((1 + e) * (1 + e))
    elif SURROGATE == TRIANGLE:
        g = alpha - alpha * alpha * tl.abs(u)
        g = tl.where(g < 0, 0.0, g)
    elif SURROGATE == RECTANGLE:
        g = tl.where(tl.abs(u) * alpha < 0.5, alpha, 0.0)
    else:
        tl.static_assert(False, "unknown surrogate")
    return g


@triton.jit
def lif_step(v, x, a, b, c, v_threshold, v_reset):
    """(v[t-1], x[t]) -> (s[t], v[t], h[t]); mirrors reference.py, in its order of rounding."""
    h = a * v + b * x.to(tl.float32) + c
    u = h - v_threshold
    s = tl.where(u >= 0, 1.0, 0.0)
    v = tl.where(u >= 0, u if v_reset is None else v_reset, h)
    return s, v, h


@triton.jit
def lif_step_adjoint(h, grad_v, v_threshold, v_reset, alpha, SURROGATE: tl.constexpr, DETACH_RESET: tl.constexpr):
    """(h[t], gradient of v[t]) -> (gradient of h[t] through v[t], ds/dh)."""
    u = h - v_threshold
    ds_dh = surrogate_derivative(u, alpha, SURROGATE)
    if v_reset is None:
        dv_dh = 1.0 if DETACH_RESET else 1 - v_threshold * ds_dh
    else:
        dv_dh = tl.where(u >= 0, 0.0, 1.0)
        if not DETACH_RESET:
            dv_dh += (v_reset - h) * ds_dh
    return grad_v * dv_dh, ds_dh


@triton.jit
def neurons(N, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """This program's offsets and mask, and N in int64: T * N may pass 2^31."""
    N = N.to(tl.int64) // VEC * VEC  # unchanged, but now the compiler knows that every row is aligned
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    return N, o_n, o_n < N


@triton.jit
def rest(v_init_ptr, v_reset, o_n, m_n, BLOCK: tl.constexpr):
    """v before the first step."""
    v = tl.zeros([BLOCK], tl.float32)
    if v_init_ptr is not None:
        v = tl.load(v_init_ptr + o_n, mask=m_n, other=0).to(tl.float32)
    elif v_reset is not None:
        v += v_reset
    return v


@triton.jit
def load_steps(ptr, t0, T, N, o_n, m_n, STEPS: tl.constexpr):
    """Steps t0 .. t0 + STEPS of a [T, N] tensor as a tuple, zeros past T."""
    p_t = ptr + t0 * N + o_n
    steps = ()
    for k in tl.static_range(STEPS):
        steps = steps + (tl.load(p_t, mask=m_n & (t0 + k < T), other=0),)
        p_t += N  # one address moved along, where an address a step would cost two registers each
    return steps


@triton.jit(do_not_specialize=["T", "N"])
def lif_fwd_kernel(
    x_ptr,
    v_init_ptr,
    spikes_ptr,
    v_last_ptr,
    v_seq_ptr,
    T,
    N,
    a,
    b,
    c,
    v_threshold,
    v_reset,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n = neurons(N, BLOCK, VEC)
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        o_t = t0 * N + o_n
        for k in tl.static_range(CHUNK):
            m_t = m_n & (o_t < T * N)  # t < T; written so, no predicate stays alive from the loads to here
            s, v_next, h = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset)
            v = tl.where(t0 + k < T, v_next, v)
            tl.store(spikes_ptr + o_t, s.to(spikes_ptr.dtype.element_ty), mask=m_t)
            if v_seq_ptr is not None:
                tl.store(v_seq_ptr + o_t, h.to(v_seq_ptr.dtype.element_ty), mask=m_t)
            o_t += N
    tl.store(v_last_ptr + o_n, v, mask=m_n)


@triton.jit(do_not_specialize=["T", "N"])
def lif_bwd_kernel(
    grad_spikes_ptr,
    grad_v_last_ptr,
    grad_v_seq_ptr,
    x_ptr,
    v_init_ptr,
    v_chunk_ptr,  # scratch [ceil(T / CHUNK) - 1, N], None where one chunk holds all of T
    grad_x_ptr,
    grad_v_init_ptr,
    T,
    N,
    a,
    b,
    c,
    v_threshold,
    v_reset,
    alpha,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n = neurons(N, BLOCK, VEC)
    v = rest(v_init_ptr, v_reset, o_n, m_n, BLOCK)
    last = (T - 1) // CHUNK
    if v_chunk_ptr is not None:
        for i in range(last):
            tl.store(v_chunk_ptr + i * N + o_n, v, mask=m_n)
            b_x = load_steps(x_ptr, i * CHUNK, T, N, o_n, m_n, CHUNK)
            for k in tl.static_range(CHUNK):
                _, v, _ = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset)
        tl.debug_barrier()  # below, another thread may read what this one stored

    b_gv = tl.zeros([BLOCK], tl.float32)
    if grad_v_last_ptr is not None:
        b_gv = tl.load(grad_v_last_ptr + o_n, mask=m_n, other=0)
    for i in range(last, -1, -1):
        t0 = i * CHUNK
        if v_chunk_ptr is not None:
            if i < last:  # the last chunk's v is at hand
                v = tl.load(v_chunk_ptr + i * N + o_n, mask=m_n, other=0)
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        b_h = ()
        for k in tl.static_range(CHUNK):
            _, v, h = lif_step(v, b_x[k], a, b, c, v_threshold, v_reset)
            b_h = b_h + (h,)
        o_t = (t0 + CHUNK - 1) * N + o_n
        for k0 in tl.static_range(CHUNK - GROUP, -1, -GROUP):
            if grad_spikes_ptr is not None:
                b_gs = load_steps(grad_spikes_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            if grad_v_seq_ptr is not None:
                b_gh = load_steps(grad_v_seq_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            for k in tl.static_range(GROUP - 1, -1, -1):
                m_t = m_n & (o_t < T * N)
                gh, ds_dh = lif_step_adjoint(b_h[k0 + k], b_gv, v_threshold, v_reset, alpha, SURROGATE, DETACH_RESET)
                if grad_spikes_ptr is not None:
                    gh += b_gs[k].to(tl.float32) * ds_dh
                if grad_v_seq_ptr is not None:
                    gh += b_gh[k].to(tl.float32)
                tl.store(grad_x_ptr + o_t, (b * gh).to(grad_x_ptr.dtype.element_ty), mask=m_t)
                o_t -= N
                b_gv = tl.where(t0 + k0 + k < T, a * gh, b_gv)
    if grad_v_init_ptr is not None:
        tl.store(grad_v_init_ptr + o_n, b_gv, mask=m_n)


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
    a: float,
    b: float,
    c: float,
    v_threshold: float,
    v_reset: float | None,
    surrogate: int,
    alpha: float,
    detach_reset: bool,
    return_v: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, N] -> spikes [T, N], v_last [N], v_seq [T, N] or empty."""
    T, N = x.shape
    spikes, v_last = torch.empty_like(x), x.new_empty((N,), dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    if N == 0:
        return spikes, v_last, v_seq
    sizes = block_sizes(N, 16 // x.element_size())
    with torch.cuda.device_of(x):
        lif_fwd_kernel[(triton.cdiv(N, sizes["BLOCK"]),)](
            x,
            v_init,
            spikes,
            v_last,
            v_seq if return_v else None,
            T,
            N,
            a,
            b,
            c,
            v_threshold,
            v_reset,
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
    a: float,
    b: float,
    c: float,
    v_threshold: float,
    v_reset: float | None,
    surrogate: int,
    alpha: float,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x [T, N] and v_init [N] or empty; a gradient that is None counts as zeros and is not read."""
    T, N = x.shape
    grad_x = torch.empty_like(x)
    grad_v_init = x.new_empty((0 if v_init is None else N,), dtype=torch.float32)
    if N == 0:
        return grad_x, grad_v_init
    sizes, chunk = block_sizes(N, 4), chunk_size(T)  # in fp32 16 bytes; 8 half values would be too many registers
    kept = (T - 1) // chunk
    v_chunk = x.new_empty((kept, N), dtype=torch.float32) if kept else None
    with torch.cuda.device_of(x):
        lif_bwd_kernel[(triton.cdiv(N, sizes["BLOCK"]),)](
            grad_spikes,
            grad_v_last,
            grad_v_seq,
            x,
            v_init,
            v_chunk,
            grad_x,
            None if v_init is None else grad_v_init,
            T,
            N,
            a,
            b,
            c,
            v_threshold,
            v_reset,
            alpha,
            SURROGATE=surrogate,
            DETACH_RESET=detach_reset,
            CHUNK=chunk,
            **sizes,
            **LAUNCH_BWD,
        )
    return grad_x, grad_v_init
