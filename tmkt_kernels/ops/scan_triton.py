"""The loop over time in Triton, forward and backward: a thread owns its neurons and runs all T steps.

Both kernels take contiguous x of shape [T, N]. What varies is given to them: the neuron (`Functions`, and its own
parameters), a batch norm in front of it (`Norm`, or None), and the pooling of its spikes (POOL).

T is a runtime value: time is walked in chunks of CHUNK steps, and the loads of a chunk are all issued before the first
use. Backward keeps nothing but x: it recomputes h, whose CHUNK values live in registers.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_common import where_also

MAX_CHUNK = 16  # h of a chunk takes 16 x 4 registers per thread; twice that would spill
GROUP = tl.constexpr(4)  # steps of gradient that backward loads at once; a whole chunk's would cost 48 more registers
NUM_WARPS = 2  # 32 programs of 64 threads fill an SM of sm_80 or sm_90, and small layers reach more SMs than with 128
# Fusion would turn a*v + b*x + c into FMAs, whose single rounding flips spikes against the reference.
LAUNCH_FWD = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
# Left to itself, ptxas spills a value or two of backward to squeeze one more program onto an SM.
LAUNCH_BWD = {**LAUNCH_FWD, "maxnreg": 255}


@dataclass(frozen=True)
class Functions:
    """One step of a neuron and its adjoint, as @triton.jit functions of blocks; those of `lif`: lif/neuron_triton.py.

    load(parameters, channels, inner, o_n, m_n) -> p, the parameters of neurons o_n, with a field `v_reset`
    charge(v, current, p, RESET) -> h
    fires(h, p, RESET) -> where there is a spike
    reset(h, p, RESET) -> v
    adjoint(step, grads, p, RESET, SURROGATE, DETACH) -> gradients of v before the step, of the current and of h, ds/dh
    parameter_gradients(step, grads, g_h, ds_dh, p, RESET, DETACH) -> a term for each of five parameters
    """

    load: Any
    charge: Any
    fires: Any
    reset: Any
    adjoint: Any
    parameter_gradients: Any

    @property
    def cache_key(self) -> str:
        """Triton's cache on disk holds a compiled kernel as long as no source of these changes."""
        return "-".join(function.cache_key for function in vars(self).values())


class Neuron(NamedTuple):
    """A neuron for a launch: its functions, the parameters that `load` takes, and the constants of its variant."""

    functions: Functions
    parameters: Any
    reset: int
    surrogate: int
    detach_reset: bool


class Step(NamedTuple):
    """One time step: v before it, h, and the current."""

    v: Any
    h: Any
    current: Any


class StepGradients(NamedTuple):
    """Gradients of the outputs of a step: s, v after the reset, and h. s and h are None where they have none."""

    s: Any
    v: Any
    h: Any


class Norm(NamedTuple):
    """A batch norm before the neuron, current = (x - mean) scale + bias: pointers to [channels], then values."""

    mean: Any
    scale: Any
    bias: Any


class Outputs(NamedTuple):
    """Pointers: spikes [T, ...], v_last [N], and v_seq [T, N] or None."""

    spikes: Any
    v_last: Any
    v_seq: Any


class Gradients(NamedTuple):
    """Pointers to gradients of `Outputs`, each None where there is none."""

    spikes: Any
    v_last: Any
    v_seq: Any


class Results(NamedTuple):
    """Pointers to what backward writes, each None where it is not wanted.

    x [T, N]; v_init [N]; coefficients [5, N] of each neuron; sums [2, N] over t of g and of g (x - mean), where g is
    the gradient of the current after a batch norm.
    """

    x: Any
    v_init: Any
    coefficients: Any
    sums: Any


class Statistics(NamedTuple):
    """Pointers to [channels]: gradients through the batch's mean and variance take g_mean + (x - mean) slope off g."""

    g_mean: Any
    slope: Any


@triton.jit
def neurons(N, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """This program's offsets and mask, and N in int64: T * N may pass 2^31."""
    N = N.to(tl.int64) // VEC * VEC  # unchanged, but now the compiler knows that every row is aligned
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    return N, o_n, o_n < N


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
def spike_row(N, inner, WIDTH, POOL: tl.constexpr):
    """Values of a step of the spikes: N, or the number of whole cells."""
    if POOL:
        N = N // inner * (inner // WIDTH // 2 * (WIDTH // 2))
    return N


@triton.jit
def start(v_init_ptr, p, o_n, m_n, BLOCK: tl.constexpr):
    """v before the first step: v_init, or v_reset where there is none."""
    v = tl.zeros([BLOCK], tl.float32)
    if v_init_ptr is not None:
        v = tl.load(v_init_ptr + o_n, mask=m_n, other=0).to(tl.float32)
    else:
        v += p.v_reset
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


@triton.jit
def load_norm(norm, channels, inner, o_n, m_n):
    """The batch norm of each neuron's channel; None where there is none."""
    if norm is not None:
        o_c = o_n // inner % channels
        mean = tl.load(norm.mean + o_c, mask=m_n, other=0)
        scale = tl.load(norm.scale + o_c, mask=m_n, other=0)
        bias = tl.load(norm.bias + o_c, mask=m_n, other=0)
        norm = Norm(mean, scale, bias)
    return norm


@triton.jit
def current_of(x, norm):
    """x -> the neuron's current in float32."""
    current = x.to(tl.float32)
    if norm is not None:
        current = (current - norm.mean) * norm.scale + norm.bias
    return current


@triton.jit
def store_pooled(spikes_ptr, s, m_cell, BLOCK: tl.constexpr):
    """The average of the four neighbours of a cell, stored by each of them."""
    pooled = tl.sum(tl.reshape(s, [BLOCK // 4, 4]), axis=1) * 0.25
    pooled = tl.reshape(tl.broadcast_to(pooled[:, None], [BLOCK // 4, 4]), [BLOCK])
    tl.store(spikes_ptr, pooled.to(spikes_ptr.dtype.element_ty), mask=m_cell)


@triton.jit(do_not_specialize=["T", "N", "channels", "inner", "WIDTH"])
def scan_fwd_kernel(
    x_ptr,
    v_init_ptr,
    norm,
    parameters,
    out,
    T,
    N,
    channels,
    inner,
    WIDTH,
    NEURON: tl.constexpr,
    RESET: tl.constexpr,
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    norm = load_norm(norm, channels, inner, o_n, m_n)
    p = NEURON.load(parameters, channels, inner, o_n, m_n)
    v = start(v_init_ptr, p, o_n, m_n, BLOCK)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        o_t = t0 * N + o_n
        for k in tl.static_range(CHUNK):
            m_t = m_n & (o_t < T * N)  # t < T; written so, no predicate stays alive from the loads to here
            h = NEURON.charge(v, current_of(b_x[k], norm), p, RESET)
            s = tl.where(NEURON.fires(h, p, RESET), 1.0, 0.0)
            v = tl.where(t0 + k < T, NEURON.reset(h, p, RESET), v)
            if POOL:
                store_pooled(out.spikes + (t0 + k) * spike_row(N, inner, WIDTH, POOL) + o_cell, s, m_cell & m_t, BLOCK)
            else:
                tl.store(out.spikes + o_t, s.to(out.spikes.dtype.element_ty), mask=m_t)
            if out.v_seq is not None:
                tl.store(out.v_seq + o_t, h.to(out.v_seq.dtype.element_ty), mask=m_t)
            o_t += N
    tl.store(out.v_last + o_n, v, mask=m_n)


@triton.jit
def v_before(b_h, first, k: tl.constexpr, p, NEURON: tl.constexpr, RESET: tl.constexpr):
    """v before step k of a chunk, whose v was `first` and whose h are b_h."""
    if k > 0:  # noqa: SIM108 (Triton would evaluate both sides, and there is no b_h[-1])
        v = NEURON.reset(b_h[k - 1], p, RESET)
    else:
        v = first
    return v


@triton.jit
def add_where(sums, terms, valid):
    """sums + terms, one by one, where `valid`."""
    added = ()
    for i in tl.static_range(len(sums)):
        added = added + (sums[i] + tl.where(valid, terms[i], 0.0),)
    return added


@triton.jit
def zeros(COUNT: tl.constexpr, BLOCK: tl.constexpr):
    rows = ()
    for _ in tl.static_range(COUNT):
        rows = rows + (tl.zeros([BLOCK], tl.float32),)
    return rows


@triton.jit(do_not_specialize=["T", "N", "channels", "inner", "WIDTH"])
def scan_bwd_kernel(
    grads,
    x_ptr,
    v_init_ptr,
    norm,
    parameters,
    statistics,  # None where the batch norm's statistics are given
    v_chunk_ptr,  # scratch [ceil(T / CHUNK) - 1, N], None where one chunk holds all of T
    out,
    T,
    N,
    channels,
    inner,
    WIDTH,
    NEURON: tl.constexpr,
    RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH: tl.constexpr,
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    norm = load_norm(norm, channels, inner, o_n, m_n)
    p = NEURON.load(parameters, channels, inner, o_n, m_n)
    if statistics is not None:
        o_c = o_n // inner % channels
        g_mean = tl.load(statistics.g_mean + o_c, mask=m_n, other=0)
        slope = tl.load(statistics.slope + o_c, mask=m_n, other=0)
    v = start(v_init_ptr, p, o_n, m_n, BLOCK)
    last = (T - 1) // CHUNK
    if v_chunk_ptr is not None:
        for i in range(last):
            tl.store(v_chunk_ptr + i * N + o_n, v, mask=m_n)
            b_x = load_steps(x_ptr, i * CHUNK, T, N, o_n, m_n, CHUNK)
            for k in tl.static_range(CHUNK):
                v = NEURON.reset(NEURON.charge(v, current_of(b_x[k], norm), p, RESET), p, RESET)
        tl.debug_barrier()  # below, another thread may read what this one stored

    g_v = tl.zeros([BLOCK], tl.float32)
    if grads.v_last is not None:
        g_v = tl.load(grads.v_last + o_n, mask=m_n, other=0)
    if out.coefficients is not None:
        g_parameters = zeros(5, BLOCK)
    if out.sums is not None:
        g_norm = zeros(2, BLOCK)
    for i in range(last, -1, -1):
        t0 = i * CHUNK
        if v_chunk_ptr is not None:
            if i < last:  # the last chunk's v is at hand
                v = tl.load(v_chunk_ptr + i * N + o_n, mask=m_n, other=0)
        first = v
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        b_h = ()
        for k in tl.static_range(CHUNK):
            h = NEURON.charge(v, current_of(b_x[k], norm), p, RESET)
            v = NEURON.reset(h, p, RESET)
            b_h = b_h + (h,)
        o_t = (t0 + CHUNK - 1) * N + o_n
        for k0 in tl.static_range(CHUNK - GROUP, -1, -GROUP):
            if norm is not None or out.coefficients is not None:
                # x is read again: kept from above, it would take as many registers as h.
                b_again = load_steps(x_ptr, t0 + k0, T, N, o_n, m_n, GROUP)
            if grads.spikes is not None:
                b_gs = load_steps(grads.spikes, t0 + k0, T, spike_row(N, inner, WIDTH, POOL), o_cell, m_cell, GROUP)
            if grads.v_seq is not None:
                b_gh = load_steps(grads.v_seq, t0 + k0, T, N, o_n, m_n, GROUP)
            for k in tl.static_range(GROUP - 1, -1, -1):
                m_t = m_n & (o_t < T * N)
                valid = t0 + k0 + k < T
                g_s = None
                if grads.spikes is not None:
                    g_s = b_gs[k].to(tl.float32)
                    if POOL:
                        g_s = g_s * 0.25
                g_h_out = None
                if grads.v_seq is not None:
                    g_h_out = b_gh[k].to(tl.float32)
                step = Step(v_before(b_h, first, k0 + k, p, NEURON, RESET), b_h[k0 + k], None)
                given = StepGradients(g_s, g_v, g_h_out)
                g_v_before, g, g_h, ds_dh = NEURON.adjoint(step, given, p, RESET, SURROGATE, DETACH)
                if out.coefficients is not None:
                    step = Step(step.v, step.h, current_of(b_again[k], norm))
                    terms = NEURON.parameter_gradients(step, given, g_h, ds_dh, p, RESET, DETACH)
                    g_parameters = add_where(g_parameters, terms, valid)
                if norm is not None:
                    d = b_again[k].to(tl.float32) - norm.mean
                    if out.sums is not None:
                        g_norm = add_where(g_norm, (g, g * d), valid)
                    if statistics is not None:
                        g = g - g_mean - d * slope
                    g = norm.scale * g
                if out.x is not None:
                    tl.store(out.x + o_t, g.to(out.x.dtype.element_ty), mask=m_t)
                o_t -= N
                g_v = tl.where(valid, g_v_before, g_v)
    if out.v_init is not None:
        tl.store(out.v_init + o_n, g_v, mask=m_n)
    if out.coefficients is not None:
        for i in tl.static_range(5):
            tl.store(out.coefficients + i * N + o_n, g_parameters[i], mask=m_n)
    if out.sums is not None:
        for i in tl.static_range(2):
            tl.store(out.sums + i * N + o_n, g_norm[i], mask=m_n)


def chunk_size(T: int) -> int:
    """Steps held in registers: three kernels serve every T, and a short T computes few steps in vain."""
    return 4 if T <= 4 else 8 if T <= 8 else MAX_CHUNK


def block_sizes(N: int, vec: int) -> dict[str, int]:
    """`vec` neurons per thread, loaded as one vector; a single neuron where N leaves later steps unaligned.

    N and T are not specialised by Triton, so these are the only two variants: no recompilation for a new size.
    """
    vec = vec if N % vec == 0 else 1
    return {"BLOCK": 32 * NUM_WARPS * vec, "VEC": vec}


class Layout(NamedTuple):
    """Where the channels of x [T, ...] are, and with pooling the width of its planes; 0 pools nothing.

    Neuron n of a step belongs to channel n // inner % channels.
    """

    channels: int = 1
    inner: int = 1
    pool_width: int = 0

    def launch(self, x: Tensor, vec: int) -> tuple[tuple[int], tuple[int, ...], dict[str, Any]]:
        """The grid, the sizes T to WIDTH, and the constants that depend on sizes."""
        T, N = x.shape[0], x[0].numel()
        slots, blocks = N, block_sizes(N, vec)
        if self.pool_width:  # the pixels of all cells, whole or not
            cells = ((self.inner // self.pool_width + 1) // 2) * ((self.pool_width + 1) // 2)
            slots, blocks = 4 * cells * (N // self.inner), block_sizes(1, 2)  # 2: one neuron per thread
        constants = {"POOL": self.pool_width > 0, "CHUNK": chunk_size(T), **blocks}
        sizes = (T, N, self.channels, self.inner, max(self.pool_width, 1))
        return (triton.cdiv(slots, blocks["BLOCK"]),), sizes, constants


def scan_forward(
    x: Tensor, v_init: Tensor | None, norm: Norm | None, neuron: Neuron, layout: Layout, out: Outputs
) -> None:
    """Run all steps of x [T, ...] and fill `out`."""
    grid, sizes, constants = layout.launch(x, 16 // x.element_size())
    with torch.cuda.device_of(x):
        scan_fwd_kernel[grid](
            x,
            v_init,
            norm,
            neuron.parameters,
            out,
            *sizes,
            NEURON=neuron.functions,
            RESET=neuron.reset,
            **constants,
            **LAUNCH_FWD,
        )


def scan_backward(
    grads: Gradients,
    x: Tensor,
    v_init: Tensor | None,
    norm: Norm | None,
    neuron: Neuron,
    layout: Layout,
    out: Results,
    statistics: Statistics | None = None,
) -> None:
    """Fill `out` from the gradients of the outputs; x [T, ...] is what forward had."""
    chunks = (x.shape[0] - 1) // chunk_size(x.shape[0])
    # 4 neurons per thread, in fp32 16 bytes; with five sums for each, or a batch norm and several chunks, their
    # registers would not suffice.
    narrow = out.coefficients is not None or (norm is not None and chunks > 0)
    grid, sizes, constants = layout.launch(x, 2 if narrow else 4)
    v_chunk = x.new_empty((chunks, x[0].numel()), dtype=torch.float32) if chunks else None
    constants |= {"NEURON": neuron.functions, "RESET": neuron.reset}
    constants |= {"SURROGATE": neuron.surrogate, "DETACH": neuron.detach_reset}
    with torch.cuda.device_of(x):
        scan_bwd_kernel[grid](
            grads,
            x,
            v_init,
            norm,
            neuron.parameters,
            statistics,
            v_chunk,
            out,
            *sizes,
            **constants,
            **LAUNCH_BWD,
        )
