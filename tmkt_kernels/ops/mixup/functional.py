"""Time-step mixup: joins static images and event frames along time in one pass."""

import torch
from torch import Tensor

from ... import backends
from .. import arguments, library, transforms
from . import op as op
from .reference import Selection, mixup_reference

CALL = library.register("mixup", op)
"""The operator, by backend."""

INPUT_DTYPES = (torch.uint8, torch.int16, torch.float32, torch.bfloat16, torch.float16)


def time_step_mixup(
    static: Tensor,
    events: Tensor,
    switch_step: Tensor,
    *,
    static_index: Tensor | None = None,
    event_index: Tensor | None = None,
    scale: float | tuple[float, float] = 1.0,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Join a static prefix and an event suffix per sample (TSM, arXiv 2511.12150).

    mixed[t, b] = static[static_index[b]] * static_scale      for t <  switch_step[b]
                  events[t, event_index[b]] * event_scale     for t >= switch_step[b]

    The static image is never repeated in memory; gather, channel mapping, scaling and conversion
    are one pass over the output. Scaling is in float32.

    Args:
        static: images [Bs, C, H, W], or [Bs, 1, H, W], whose one plane fills every channel;
            uint8, int16, float32, bfloat16 or float16.
        events: event frames [T, Be, C, H, W], dtypes as for static (the two may differ).
        switch_step: int64 [B], first event step of each sample, in 0..T; T means none.
        static_index, event_index: int64 [B], the image and the recording of sample b;
            None pairs sample b with image or recording b, and then needs Bs = B or Be = B.
        scale: one factor for both, or (static_scale, event_scale); (1 / 255, 1.0) for uint8 images.
        dtype: of the result, a float type; None promotes the float inputs, float32 if there is none.
        backend: "auto", "native", "triton" or "reference".

    Returns:
        mixed [T, B, C, H, W], contiguous; differentiable with respect to float static and events.

    Raises:
        TypeError, ValueError, IndexError: a bad shape, dtype, device or index, named. On a GPU and in
            compiled graphs the kernel itself checks indices and switch steps (on a GPU by a device-side
            assertion), to avoid a synchronisation.
        RuntimeError: a backend chosen by name cannot serve these tensors.
    """
    dtype = _check_inputs(static, events, switch_step, static_index, event_index, dtype)
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    if len(pair) != 2:
        raise ValueError(f"scale: expected one factor, or a pair (static_scale, event_scale); got {scale!r}")
    expected = "a finite float, or a pair (static_scale, event_scale) of them"
    static_scale, event_scale = (arguments.finite("scale", factor, expected) for factor in pair)
    served = [t for t in (static.dtype, events.dtype) if t.is_floating_point] + [dtype]
    kernel_dtype = next((t for t in served if t not in backends.KERNEL_DTYPES), dtype)
    chosen = backends.choose("mixup", events.device, kernel_dtype, backend)
    if events.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_range(static, events, switch_step, static_index, event_index)
    images, recordings = (i if i is None else i.contiguous() for i in (static_index, event_index))
    selection = Selection(switch_step.contiguous(), images, recordings, static_scale, event_scale)
    if chosen == "reference":
        return mixup_reference(static, events, selection, dtype)
    mixed: Tensor = CALL[chosen](static.contiguous(), events.contiguous(), *selection, dtype)
    return mixed


def _result_dtype(static: Tensor, events: Tensor) -> torch.dtype:
    floats = [t.dtype for t in (static, events) if t.is_floating_point()]
    return torch.promote_types(floats[0], floats[-1]) if floats else torch.float32


def _check_inputs(
    static: Tensor,
    events: Tensor,
    switch_step: Tensor,
    static_index: Tensor | None,
    event_index: Tensor | None,
    dtype: torch.dtype | None,
) -> torch.dtype:
    """Raise for inputs that do not fit together; return the dtype of the result."""
    sources = {"static": (static, "[Bs, C, H, W]"), "events": (events, "[T, Be, C, H, W]")}
    indices = {"switch_step": switch_step}
    indices |= {n: i for n, i in (("static_index", static_index), ("event_index", event_index)) if i is not None}
    for name, (tensor, shape) in sources.items():
        if arguments.dense(name, tensor, shape).dtype not in (*INPUT_DTYPES, torch.float64):
            raise TypeError(f"{name}: expected uint8, int16 or a float type, got {tensor.dtype}; convert it first")
    for name, integers in indices.items():
        if arguments.dense(name, integers, "int64 [B]").dtype != torch.int64:
            raise TypeError(f"{name}: expected int64, got {integers.dtype}; convert it first")
    dtype = dtype or _result_dtype(static, events)
    if not isinstance(dtype, torch.dtype) or dtype not in arguments.FLOAT_DTYPES:
        raise TypeError(
            f"dtype: expected a float type for the result (float32, bfloat16, float16, float64), got {dtype}"
        )
    if static.dim() != 4 or events.dim() != 5:
        raise ValueError(
            "static and events: expected [Bs, C, H, W] and [T, Be, C, H, W], "
            f"got {tuple(static.shape)} and {tuple(events.shape)}"
        )
    if static.shape[2:] != events.shape[3:] or static.shape[1] not in (1, events.shape[2]):
        raise ValueError(
            f"static: expected the events' C, H, W = {tuple(events.shape[2:])} (or one channel), "
            f"got {tuple(static.shape[1:])}; resize or repeat it first"
        )
    if switch_step.dim() != 1:
        raise ValueError(f"switch_step: expected int64 [B], got shape {tuple(switch_step.shape)}")
    batch = switch_step.shape[0]
    paired = {"static_index": (static_index, static.shape[0]), "event_index": (event_index, events.shape[1])}
    for name, (index, source) in paired.items():
        if index is None and source != batch:
            raise ValueError(f"{name}: needed, since switch_step has B = {batch} samples and the source {source}")
        if index is not None and index.shape != switch_step.shape:
            raise ValueError(f"{name}: expected shape {tuple(switch_step.shape)}, got {tuple(index.shape)}")
    for name, other in {"static": static, **indices}.items():
        if other.device != events.device:
            raise ValueError(f"{name}: expected a tensor on {events.device} like events, got {other.device}")
    return dtype


def _check_range(static: Tensor, events: Tensor, *integers: Tensor | None) -> None:
    limits = {"switch_step": events.shape[0] + 1, "static_index": static.shape[0], "event_index": events.shape[1]}
    for (name, limit), index in zip(limits.items(), integers, strict=True):
        values = None if index is None else transforms.concrete(index)
        if values is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
            low, high = int(values.min()), int(values.max())
            raise IndexError(f"{name}: expected values in 0..{limit - 1}, got {low}..{high}")
