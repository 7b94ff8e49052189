"""Time-step mixup in Triton: gather, scale and convert in one pass over the output; mirrors reference.py.

A frame is C planes of P pixels, and an image is one plane. Static images with all channels make one plane of all
channels (C = 1, P = C H W), and those with one channel repeat it (P = H W), so that the kernels need no channels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_common import where_also
from .reference import Selection

NUM_WARPS = 4
# debug keeps device_assert, so that a wrong index stops the program; alone, it would also check every sum of int32.
# 64 registers let 1,024 threads share an SM; without the limit, ptxas would spill to fit twice as many.
LAUNCH = {"num_warps": NUM_WARPS, "debug": True, "sanitize_overflow": False, "maxnreg": 64}
SIZES = ["T", "B", "Bs", "Be", "C", "P"]  # run-time values, so that a new size never recompiles


@triton.jit
def plane_block(P, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """Return P, the plane and pixels of this program, and their mask; in int64, for tensors beyond 2^31 elements."""
    P = P.to(tl.int64) // VEC * VEC  # unchanged, but tells the compiler that every plane is aligned
    n_blocks = tl.cdiv(P, BLOCK)
    pid = tl.program_id(0).to(tl.int64)
    o_p = pid % n_blocks * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    return P, pid // n_blocks, o_p, o_p < P


@triton.jit
def load_sample(b, selection, T, Bs, Be):
    """Return sample b's switch step, image and recording, and whether they are in range. If not, read nothing."""
    switch = tl.load(selection.switch_step + b)
    i_s, i_e = b, b
    if selection.static_index is not None:
        i_s = tl.load(selection.static_index + b)
    if selection.event_index is not None:
        i_e = tl.load(selection.event_index + b)
    switch_ok = (switch >= 0) & (switch <= T)
    static_ok = (i_s >= 0) & (i_s < Bs)
    event_ok = (i_e >= 0) & (i_e < Be)
    tl.device_assert(switch_ok, "switch_step: expected values in 0..T")
    tl.device_assert(static_ok, "static_index: expected indices of static's images")
    tl.device_assert(event_ok, "event_index: expected indices of events' recordings")
    return switch, i_s, i_e, switch_ok & static_ok & event_ok


@triton.jit
def samples_of(source, order_ptr, start_ptr, B, sources):
    """Return the begin and end in `order` of the samples of this source; without `order`, they are one to one."""
    begin, end = source, source + 1
    if start_ptr is not None:
        begin, end = tl.load(start_ptr + source), tl.load(start_ptr + source + 1)
        all_in_range = (tl.load(start_ptr) == 0) & (tl.load(start_ptr + sources) == B)
        tl.device_assert(all_in_range, "static_index or event_index: expected indices of the sources")
    return begin, end


@triton.jit(do_not_specialize=SIZES)
def mixup_fwd_kernel(
    static_ptr,
    events_ptr,
    selection,
    mixed_ptr,
    T,
    B,
    Bs,
    Be,
    C,
    P,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    P, plane, o_p, m_p = plane_block(P, BLOCK, VEC)
    t, b, c = plane // C // B, plane // C % B, plane % C
    switch, i_s, i_e, valid = load_sample(b, selection, T, Bs, Be)
    if t >= switch:
        o_x = ((t * Be + i_e) * C + c) * P + o_p
        b_m = tl.load(events_ptr + o_x, mask=where_also(m_p, valid), other=0).to(tl.float32) * selection.event_scale
    else:
        o_x = i_s * P + o_p
        b_m = tl.load(static_ptr + o_x, mask=where_also(m_p, valid), other=0).to(tl.float32) * selection.static_scale
    tl.store(mixed_ptr + plane * P + o_p, b_m.to(mixed_ptr.dtype.element_ty), mask=m_p)


@triton.jit(do_not_specialize=SIZES)
def mixup_bwd_static_kernel(
    grad_ptr,
    order_ptr,
    start_ptr,
    selection,
    grad_static_ptr,
    T,
    B,
    Bs,
    Be,
    C,
    P,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """One image per program. Its gradient sums over samples, planes and steps, always in this order."""
    P, image, o_p, m_p = plane_block(P, BLOCK, VEC)
    b_g = tl.zeros([BLOCK], tl.float32)
    begin, end = samples_of(image, order_ptr, start_ptr, B, Bs)
    for k in range(begin, end):
        b = k if order_ptr is None else tl.load(order_ptr + k)
        switch, _, _, valid = load_sample(b, selection, T, Bs, Be)
        steps = tl.where(valid, switch, 0)
        for c in range(C):
            p_g = grad_ptr + (b * C + c) * P + o_p
            for _t in tl.range(0, steps, loop_unroll_factor=2):
                b_g += tl.load(p_g, mask=m_p, other=0).to(tl.float32)
                p_g += B * C * P
    b_g *= selection.static_scale
    tl.store(grad_static_ptr + image * P + o_p, b_g.to(grad_static_ptr.dtype.element_ty), mask=m_p)


@triton.jit(do_not_specialize=SIZES)
def mixup_bwd_events_kernel(
    grad_ptr,
    order_ptr,
    start_ptr,
    selection,
    grad_events_ptr,
    T,
    B,
    Bs,
    Be,
    C,
    P,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """One plane of one frame per program. Its gradient sums over samples in their order."""
    P, plane, o_p, m_p = plane_block(P, BLOCK, VEC)
    t, e, c = plane // C // Be, plane // C % Be, plane % C
    b_g = tl.zeros([BLOCK], tl.float32)
    begin, end = samples_of(e, order_ptr, start_ptr, B, Be)
    for k in range(begin, end):
        b = k if order_ptr is None else tl.load(order_ptr + k)
        switch, _, _, valid = load_sample(b, selection, T, Bs, Be)
        used = valid & (t >= switch)
        b_g += tl.load(grad_ptr + ((t * B + b) * C + c) * P + o_p, mask=where_also(m_p, used), other=0).to(tl.float32)
    b_g *= selection.event_scale
    tl.store(grad_events_ptr + plane * P + o_p, b_g.to(grad_events_ptr.dtype.element_ty), mask=m_p)


def launch(
    kernel: Any,
    out: Tensor,
    sources: tuple[Tensor | None, ...],
    selection: Selection,
    static: torch.Size,
    events: torch.Size,
) -> None:
    """Launch one program per block of a plane of `out`. A thread writes 16 bytes; of unaligned planes, one element."""
    if out.numel() == 0:
        return
    T, Be, channels = events[:3]
    C, P = channels // static[1], static[1:].numel()
    vec = 16 // out.element_size()
    vec = vec if P % vec == 0 else 1
    block = 32 * NUM_WARPS * vec
    grid = (out.numel() // P * triton.cdiv(P, block),)
    sizes = (T, len(selection.switch_step), static[0], Be, C, P)
    with torch.cuda.device_of(out):
        kernel[grid](*sources, selection, out, *sizes, BLOCK=block, VEC=vec, **LAUNCH)


def samples_by_source(index: Tensor | None, sources: int) -> tuple[Tensor | None, Tensor | None]:
    """Return `order` and `start`: source i has the samples order[start[i] : start[i + 1]], ascending. None: 1 to 1."""
    if index is None:
        return None, None
    ordered, order = index.sort(stable=True)
    return order, torch.searchsorted(ordered, torch.arange(sources + 1, device=index.device))


def mixup_fwd(static: Tensor, events: Tensor, selection: Selection, dtype: torch.dtype) -> Tensor:
    """static [Bs, 1 or C, H, W], events [T, Be, C, H, W] -> mixed [T, B, C, H, W]."""
    mixed = events.new_empty((events.shape[0], len(selection.switch_step), *events.shape[2:]), dtype=dtype)
    launch(mixup_fwd_kernel, mixed, (static, events), selection, static.shape, events.shape)
    return mixed


def mixup_bwd(
    grad: Tensor, static: Tensor, events: Tensor, selection: Selection, need_static: bool, need_events: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of static and of events, each empty if not needed; deterministic, without atomics."""
    grad_static = torch.empty_like(static) if need_static else grad.new_empty((0,))
    grad_events = torch.empty_like(events) if need_events else grad.new_empty((0,))
    if need_static:
        sources = grad, *samples_by_source(selection.static_index, static.shape[0])
        launch(mixup_bwd_static_kernel, grad_static, sources, selection, static.shape, events.shape)
    if need_events:
        sources = grad, *samples_by_source(selection.event_index, events.shape[1])
        launch(mixup_bwd_events_kernel, grad_events, sources, selection, static.shape, events.shape)
    return grad_static, grad_events


def forward(*args: Any) -> Tensor:
    static, events, *selection, dtype = args
    return mixup_fwd(static, events, Selection(*selection), dtype)


def backward(*args: Any) -> tuple[Tensor, Tensor]:
    grad, static, events, *selection, need_static, need_events = args
    return mixup_bwd(grad, static, events, Selection(*selection), need_static, need_events)
