"""The loop over time in Triton, forward and backward: a thread owns its neurons and runs all T steps.

Both kernels take contiguous x of shape [T, N]. Their parameters are the neuron (`Neuron`, and its own parameters), a
batch norm in front of it (`Norm`, or None), and the pooling of its spikes (POOL).

T is a run-time value. Time is processed in chunks of CHUNK steps, and all loads of a chunk are issued before the first
use. Backward keeps only x: it recomputes h, whose CHUNK values live in registers.
"""

import triton
import triton.language as tl

from .scan_values import Chunk, Ends, Norm, Place, Source, Statistics, Step, StepGradients, Sums
from .triton_common import where_also

GROUP = tl.constexpr(4)  # gradient steps that backward loads at once; a whole chunk would take 48 more registers


@triton.jit
def neurons(N, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """This program's offsets and mask, and N in int64, because T * N may exceed 2^31."""
    N = N.to(tl.int64) // VEC * VEC  # unchanged, but tells the compiler that every row is aligned
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    return N, o_n, o_n < N


@triton.jit
def pixels(N, inner, WIDTH, POOL: tl.constexpr, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """N, the offsets of this program's neurons, their mask, and with POOL the 2x2 cell of each and whether it is whole.

    With POOL, four neighbouring offsets are the pixels of a cell. In a cell that an odd height or width cuts off, the
    missing pixels repeat a neighbour: same value, same address, so that the duplicate store is harmless.
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
    """Values per step of the spikes: N, or the number of whole cells."""
    if POOL:
        N = N // inner * (inner // WIDTH // 2 * (WIDTH // 2))
    return N


@triton.jit
def start(v_init_ptr, p, o_n, m_n, BLOCK: tl.constexpr):
    """v before the first step: v_init, or v_reset without it."""
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
        p_t += N  # moving one address takes fewer registers than two per step for separate ones
    return steps


@triton.jit
def load_norm(norm, channels, inner, o_n, m_n):
    """The batch norm of each neuron's channel."""
    o_c = o_n // inner % channels
    mean = tl.load(norm.mean + o_c, mask=m_n, other=0)
    scale = tl.load(norm.scale + o_c, mask=m_n, other=0)
    return Norm(mean, scale, tl.load(norm.bias + o_c, mask=m_n, other=0))


@triton.jit
def current_of(x, norm):
    """x -> the neuron's current in float32."""
    current = x.to(tl.float32)
    if norm is not None:
        current = (current - norm.mean) * norm.scale + norm.bias
    return current


@triton.jit
def store_pooled(spikes_ptr, s, m_cell, BLOCK: tl.constexpr):
    """Store the average of the four neighbours of a cell; each of them stores it."""
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
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    if norm is not None:
        norm = load_norm(norm, channels, inner, o_n, m_n)
    p = NEURON.load(parameters, channels, inner, o_n, m_n)
    v = start(v_init_ptr, p, o_n, m_n, BLOCK)
    for t0 in range(0, T, CHUNK):
        b_x = load_steps(x_ptr, t0, T, N, o_n, m_n, CHUNK)
        o_t = t0 * N + o_n
        for k in tl.static_range(CHUNK):
            m_t = m_n & (o_t < T * N)  # t < T, in a form that keeps no predicate alive from the loads to here
            h = NEURON.charge(v, current_of(b_x[k], norm), p, NEURON)
            s = tl.where(NEURON.fires(h, p, NEURON), 1.0, 0.0)
            v = tl.where(t0 + k < T, NEURON.after(h, p, NEURON), v)
            if POOL:
                store_pooled(out.spikes + (t0 + k) * spike_row(N, inner, WIDTH, POOL) + o_cell, s, m_cell & m_t, BLOCK)
            else:
                tl.store(out.spikes + o_t, s.to(out.spikes.dtype.element_ty), mask=m_t)
            if out.v_seq is not None:
                tl.store(out.v_seq + o_t, h.to(out.v_seq.dtype.element_ty), mask=m_t)
            o_t += N
    tl.store(out.v_last + o_n, v, mask=m_n)


@triton.jit
def charge_chunk(source, place, t0, v, NEURON: tl.constexpr, CHUNK: tl.constexpr):
    """v after the chunk that begins at t0, and the h of its steps."""
    b_x = load_steps(source.x, t0, place.T, place.N, place.o_n, place.m_n, CHUNK)
    b_h = ()
    for k in tl.static_range(CHUNK):
        h = NEURON.charge(v, current_of(b_x[k], source.norm), source.p, NEURON)
        v = NEURON.after(h, source.p, NEURON)
        b_h = b_h + (h,)
    return v, b_h


@triton.jit
def v_before(b_h, first, k: tl.constexpr, p, NEURON: tl.constexpr):
    """v before step k of a chunk that begins with v = `first` and has b_h as its h."""
    if k > 0:  # noqa: SIM108 (Triton would evaluate both sides, and there is no b_h[-1])
        v = NEURON.after(b_h[k - 1], p, NEURON)
    else:
        v = first
    return v


@triton.jit
def load_statistics(statistics, channels, inner, o_n, m_n):
    """Load `Statistics` of each neuron's channel."""
    o_c = o_n // inner % channels
    g_mean = tl.load(statistics.g_mean + o_c, mask=m_n, other=0)
    return Statistics(g_mean, tl.load(statistics.slope + o_c, mask=m_n, other=0))


@triton.jit
def through_norm(g, d, norm, statistics):
    """Gradient of x from the gradient g of the current, where d is x - mean."""
    if statistics is not None:
        g = g - statistics.g_mean - d * statistics.slope
    return norm.scale * g


@triton.jit
def zeros(COUNT: tl.constexpr, BLOCK: tl.constexpr):
    rows = ()
    for _ in tl.static_range(COUNT):
        rows = rows + (tl.zeros([BLOCK], tl.float32),)
    return rows


@triton.jit
def add_where(sums, terms, valid):
    """sums + terms, one by one, where `valid`."""
    added = ()
    for i in tl.static_range(len(sums)):
        added = added + (sums[i] + tl.where(valid, terms[i], 0.0),)
    return added


@triton.jit
def store_rows(ptr, rows, place):
    """Store the rows of a [len(rows), N] tensor."""
    for i in tl.static_range(len(rows)):
        tl.store(ptr + i * place.N + place.o_n, rows[i], mask=place.m_n)


@triton.jit
def backward_group(place, source, ends, chunk, k0: tl.constexpr, sums, NEURON: tl.constexpr, POOL: tl.constexpr):
    """Go back through steps k0 + GROUP - 1 .. k0 of a chunk: store their gradient of x, and add theirs to the sums."""
    t0 = chunk.t0 + k0
    norm, p, g_v, g_parameters, g_norm = source.norm, source.p, sums.v, sums.parameters, sums.norm
    if norm is not None or ends.out.coefficients is not None:
        # x is read again, because keeping it from the recomputation would take as many registers as h.
        b_x = load_steps(source.x, t0, place.T, place.N, place.o_n, place.m_n, GROUP)
    if ends.grads.spikes is not None:
        b_gs = load_steps(ends.grads.spikes, t0, place.T, place.row, place.o_cell, place.m_cell, GROUP)
    if ends.grads.v_seq is not None:
        b_gh = load_steps(ends.grads.v_seq, t0, place.T, place.N, place.o_n, place.m_n, GROUP)
    o_t = (t0 + GROUP - 1) * place.N + place.o_n
    for k in tl.static_range(GROUP - 1, -1, -1):
        valid = t0 + k < place.T
        step = Step(v_before(chunk.h, chunk.v, k0 + k, p, NEURON), chunk.h[k0 + k], None)
        g_s = None
        if ends.grads.spikes is not None:
            g_s = b_gs[k].to(tl.float32)
            if POOL:
                g_s = g_s * 0.25
        g_h_seq = None
        if ends.grads.v_seq is not None:
            g_h_seq = b_gh[k].to(tl.float32)
        given = StepGradients(g_s, g_v, g_h_seq)
        g_v_before, g, g_h, ds_dh = NEURON.adjoint(step, given, p, NEURON)
        if ends.out.coefficients is not None:
            step = Step(step.v, step.h, current_of(b_x[k], norm))
            terms = NEURON.parameter_gradients(step, given, g_h, ds_dh, p, NEURON)
            g_parameters = add_where(g_parameters, terms, valid)
        if norm is not None:
            d = b_x[k].to(tl.float32) - norm.mean
            if ends.out.sums is not None:
                g_norm = add_where(g_norm, (g, g * d), valid)
            g = through_norm(g, d, norm, ends.statistics)
        if ends.out.x is not None:
            m_t = place.m_n & (o_t < place.T * place.N)
            tl.store(ends.out.x + o_t, g.to(ends.out.x.dtype.element_ty), mask=m_t)
        o_t -= place.N
        g_v = tl.where(valid, g_v_before, g_v)
    return Sums(g_v, g_parameters, g_norm)


@triton.jit(do_not_specialize=["T", "N", "channels", "inner", "WIDTH"])
def scan_bwd_kernel(
    grads,
    x_ptr,
    v_init_ptr,
    norm,
    parameters,
    statistics,  # None if the user gives the batch norm's statistics
    v_chunk_ptr,  # scratch [ceil(T / CHUNK) - 1, N], None if one chunk holds all of T
    out,
    T,
    N,
    channels,
    inner,
    WIDTH,
    NEURON: tl.constexpr,
    POOL: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    N, o_n, m_n, o_cell, m_cell = pixels(N, inner, WIDTH, POOL, BLOCK, VEC)
    place = Place(T, N, o_n, m_n, o_cell, m_cell, spike_row(N, inner, WIDTH, POOL))
    p = NEURON.load(parameters, channels, inner, o_n, m_n)
    if norm is not None:
        norm = load_norm(norm, channels, inner, o_n, m_n)
    if statistics is not None:
        statistics = load_statistics(statistics, channels, inner, o_n, m_n)
    source = Source(x_ptr, norm, p)
    v = start(v_init_ptr, p, o_n, m_n, BLOCK)
    last = (T - 1) // CHUNK
    if v_chunk_ptr is not None:
        for i in range(last):
            tl.store(v_chunk_ptr + i * N + o_n, v, mask=m_n)
            v, _ = charge_chunk(source, place, i * CHUNK, v, NEURON, CHUNK)
        tl.debug_barrier()  # another thread may read below what this one stored
    g_v = tl.zeros([BLOCK], tl.float32)
    if grads.v_last is not None:
        g_v = tl.load(grads.v_last + o_n, mask=m_n, other=0)
    sums, ends = Sums(g_v, zeros(5, BLOCK), zeros(2, BLOCK)), Ends(grads, statistics, out)
    for i in range(last, -1, -1):
        if v_chunk_ptr is not None:
            if i < last:  # the last chunk's v is known
                v = tl.load(v_chunk_ptr + i * N + o_n, mask=m_n, other=0)
        first = v
        v, b_h = charge_chunk(source, place, i * CHUNK, v, NEURON, CHUNK)
        for k0 in tl.static_range(CHUNK - GROUP, -1, -GROUP):
            sums = backward_group(place, source, ends, Chunk(i * CHUNK, first, b_h), k0, sums, NEURON, POOL)
    if out.v_init is not None:
        tl.store(out.v_init + o_n, sums.v, mask=m_n)
    if out.coefficients is not None:
        store_rows(out.coefficients, sums.parameters, place)
    if out.sums is not None:
        store_rows(out.sums, sums.norm, place)
