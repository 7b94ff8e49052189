"""tmkt_kernels.time_step_mixup: every backend against the reference."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tmkt_kernels as tk
from tmkt_kernels.ops.mixup.functional import INPUT_DTYPES
from tmkt_kernels.ops.mixup.reference import Selection
from tmkt_kernels.testing import MIXUP_CASES, assert_gradient_close, assert_stored_equal, mixup_run

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def make(shape, dtype, device="cpu"):
    values = torch.randn(shape) * 3 if dtype.is_floating_point else torch.randint(0, 200, shape)
    return values.to(dtype).to(device)


def indices(device):
    """switch_step, static_index, event_index for B = 5, Bs = 6, Be = 5, T = 4: repeats, unused sources, both ends."""
    return (torch.tensor(v, device=device) for v in ([0, 4, 2, 1, 3], [5, 0, 5, 1, 2], [1, 1, 4, 0, 2]))


@pytest.mark.parametrize("case", MIXUP_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: str(d)[6:])
def test_each_case(case, dtype, every_target):
    """Forward equals the reference bit for bit, gradients those in float64, with exact zeros for unused sources."""
    backend, device = every_target
    inputs = case.inputs(device)
    mixed, grads = mixup_run(case, inputs, dtype, backend)
    assert_stored_equal(mixed, mixup_run(case, inputs, dtype, "reference")[0], backend)
    for grad, exact in zip(grads, mixup_run(case, inputs, dtype, "reference", exact=True)[1], strict=True):
        assert_gradient_close(grad, exact, min(dtype, grad.dtype, key=lambda d: torch.finfo(d).bits))
        assert torch.equal(grad == 0, exact == 0)


def test_the_definition_sample_by_sample(target):
    backend, device = target
    switch_step, static_index, event_index = indices(device)
    static, events = make((6, 2, 3, 3), torch.float32, device), make((4, 5, 2, 3, 3), torch.float32, device)
    mixed = tk.time_step_mixup(
        static, events, switch_step, static_index=static_index, event_index=event_index, backend=backend
    )
    for t, b in itertools.product(range(4), range(5)):
        source = static[static_index[b]] if t < switch_step[b] else events[t, event_index[b]]
        assert torch.equal(mixed[t, b], source)


def mix_and_gradients(static, events, switch_step, grad, backend, dtype, **kwargs):
    """Return mixed and the gradients of static and events, with all floats in `dtype`."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (static, events)]
    mixed = tk.time_step_mixup(*leaves, switch_step, scale=(0.25, 0.5), backend=backend, **kwargs)
    return mixed.detach(), *torch.autograd.grad(mixed, leaves, grad.to(dtype))


def assert_as_the_reference(static, events, switch_step, target, **index):
    """Forward bit for bit, backward against float64, exact zeros for unused sources."""
    backend, device = target
    T, _, *frame = events.shape
    dtype = events.dtype
    static, events, switch_step = static.to(device), events.to(device), switch_step.to(device)
    index = {name: values.to(device) for name, values in index.items()}
    grad = make((T, len(switch_step), *frame), dtype, device)
    mixed, *grads = mix_and_gradients(static, events, switch_step, grad, backend, dtype, **index)
    assert torch.equal(mixed, mix_and_gradients(static, events, switch_step, grad, "reference", dtype, **index)[0])
    _, *expected = mix_and_gradients(static, events, switch_step, grad, "reference", torch.float64, **index)
    for actual, exact in zip(grads, expected, strict=True):
        assert_gradient_close(actual, exact, dtype)
        assert torch.equal(actual == 0, exact == 0)


def drawn(batch, sources):
    return torch.randint(0, sources, (batch,), generator=torch.Generator().manual_seed(1))


# name: B, sources, index. CUDA links 256 samples at a time, and 1,024 sources per block.
PAIRINGS = {
    "one-source": (600, 7, torch.full((600,), 5)),
    "descending": (200, 200, torch.arange(199, -1, -1)),
    "in-pairs": (140, 70, torch.arange(140) // 2),
    "unused-sources": (3, 2100, torch.tensor([2099, 0, 1024])),
    "one-sample": (1, 3, torch.tensor([2])),
    "many": (1000, 1500, drawn(1000, 1500)),
    "crowded": (1100, 40, drawn(1100, 40)),
    "each-its-own": (1100, 1100, torch.randperm(1100, generator=torch.Generator().manual_seed(1))),
}


@pytest.mark.parametrize("channels", [1, 2], ids=["one-plane", "all-channels"])
@pytest.mark.parametrize("dtype", FLOATS[:2], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", PAIRINGS)
def test_pairings(name, dtype, channels, target):
    batch, sources, index = PAIRINGS[name]
    static, events = make((sources, channels, 1, 4), dtype), make((3, sources, 2, 1, 4), dtype)
    switch_step = torch.randint(0, 4, (batch,))
    assert_as_the_reference(static, events, switch_step, target, static_index=index, event_index=index.flip(0))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("plane", [(1, 1), (3, 4), (5, 5), (16, 17)], ids=str)
@pytest.mark.parametrize("steps", [1, 4, 35])
def test_planes_and_steps(plane, steps, dtype, target):
    static, events = make((6, 1, *plane), dtype), make((steps, 6, 3, *plane), dtype)
    switch_step = torch.tensor([0, steps, steps // 2, 1, steps - 1, steps // 3])
    assert_as_the_reference(static, events, switch_step, target)


@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("dtype", INPUT_DTYPES, ids=lambda d: str(d)[6:])
def test_sources_at_any_address(dtype, offset, target):
    backend, device = target

    def view(*shape):
        return make((offset + torch.Size(shape).numel(),), dtype, device)[offset:].view(shape)

    static, events = view(5, 2, 4, 8), view(4, 5, 2, 4, 8)
    switch_step, *_ = indices(device)
    for result in FLOATS:
        mixed, expected = (
            tk.time_step_mixup(static, events, switch_step, dtype=result, backend=name)
            for name in (backend, "reference")
        )
        assert torch.equal(mixed, expected)


@pytest.mark.parametrize("offset", [1, 4])
def test_gradient_at_any_address(offset, target):
    backend, device = target
    shape = (4, 5, 2, 4, 8)
    grad = make((offset + torch.Size(shape).numel(),), torch.float32, device)[offset:].view(shape)
    sources = make(shape[1:], torch.float32, device), make(shape, torch.float32, device)
    switch_step, *_ = indices(device)
    _, *actual = mix_and_gradients(*sources, switch_step, grad, backend, torch.float32)
    _, *expected = mix_and_gradients(*sources, switch_step, grad, "reference", torch.float64)
    for ours, exact in zip(actual, expected, strict=True):
        assert_gradient_close(ours, exact, torch.float32)


def test_no_samples_no_pixels_no_steps(every_target):
    backend, device = every_target
    for T, B, C, H in ((3, 0, 2, 4), (3, 2, 2, 0), (3, 2, 0, 4), (0, 2, 2, 4)):
        static, events = make((6, C, H, 4), torch.float32, device), make((T, 6, C, H, 4), torch.float32, device)
        index = torch.zeros(B, dtype=torch.int64, device=device)
        grad = make((T, B, C, H, 4), torch.float32, device)
        results = mix_and_gradients(
            static, events, index, grad, backend, torch.float32, static_index=index, event_index=index
        )
        assert [result.shape for result in results] == [grad.shape, static.shape, events.shape]
        assert not results[1].any()


def test_gradient_of_one_side_only(every_target):
    backend, device = every_target
    switch_step, *_ = indices(device)
    static, events = make((5, 2, 4, 4), torch.float32, device), make((4, 5, 2, 4, 4), torch.uint8, device)
    static.requires_grad_()
    mixed = tk.time_step_mixup(static, events, switch_step, backend=backend)
    mixed.sum().backward()
    assert torch.equal(static.grad, switch_step.float()[:, None, None, None].expand_as(static))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: str(d)[6:])
def test_dyadic_gradients_are_exact(dtype, every_target):
    """One plane for both channels, repeated indices, unused sources: sums that are exact in every dtype."""
    backend, device = every_target
    switch_step, static_index, event_index = indices(device)
    sources = make((6, 1, 4, 4), dtype, device), make((4, 5, 2, 4, 4), dtype, device)
    grad = torch.randint(-2, 3, (4, 5, 2, 4, 4), device=device)
    index = {"static_index": static_index, "event_index": event_index}
    _, *actual = mix_and_gradients(*sources, switch_step, grad, backend, dtype, **index)
    _, *exact = mix_and_gradients(*sources, switch_step, grad, "reference", torch.float64, **index)
    for ours, expected in zip(actual, exact, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours.double(), expected)


EVERY_HALF = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
CONVERTED = {
    "every float16": EVERY_HALF.view(torch.float16),
    "every bfloat16": EVERY_HALF.view(torch.bfloat16),
    "every int16": EVERY_HALF,
    "small floats": torch.randn(2**16, generator=torch.Generator().manual_seed(0)) * 1e-6,
    "every uint8": torch.arange(2**8).to(torch.uint8),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("values", CONVERTED)
def test_every_value_is_converted_as_by_torch(values, scale, dtype, target):
    """Also subnormals, infinities and NaN, in whole vectors and in the rest of a row."""
    backend, device = target
    static = CONVERTED[values].to(device)[None, None, None]
    events, switch_step = torch.zeros(1, 1, *static.shape[1:], device=device), torch.tensor([1], device=device)
    mixed, expected = (
        tk.time_step_mixup(static, events, switch_step, scale=scale, dtype=dtype, backend=b)
        for b in (backend, "reference")
    )
    assert torch.equal(mixed.isnan(), expected.isnan())
    assert torch.equal(mixed.nan_to_num(), expected.nan_to_num())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device-side assertion ends the CUDA context")
@pytest.mark.parametrize("name, value", [("switch_step", 5), ("static_index", 6), ("event_index", 5)])
@pytest.mark.parametrize("below", [False, True])
def test_triton_asserts_its_indices(monkeypatch, name, value, below):
    pytest.importorskip("triton")
    from triton.runtime.interpreter import interpreter_builder as builder

    from tmkt_kernels.ops.mixup.triton import mixup_bwd, mixup_fwd

    # The interpreter ignores the launch's debug=True.
    monkeypatch.setattr(builder, "options", dataclasses.replace(builder.options, debug=True))
    index = dict(zip(("switch_step", "static_index", "event_index"), indices("cpu"), strict=True))
    index[name][-1] = -1 if below else value
    static, events = make((6, 2, 2, 2), torch.float32), make((4, 5, 2, 2, 2), torch.float32)
    selection = Selection(**index, static_scale=1.0, event_scale=1.0)
    with pytest.raises(Exception, match=name):
        mixup_fwd(static, events, selection, torch.float32)
    for need_static in (True, False):
        with pytest.raises(Exception, match=name):
            mixup_bwd(events, static, events, selection, need_static, not need_static)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_size(data):
    T, B, sources = (data.draw(st.integers(low, 9)) for low in (1, 0, 1))
    C, H, W = (data.draw(st.integers(0, 9)) for _ in range(3))
    static_dtype, event_dtype = (data.draw(st.sampled_from(INPUT_DTYPES)) for _ in range(2))
    static, events = make((sources, C, H, W), static_dtype), make((T, sources, C, H, W), event_dtype)
    switch_step = torch.randint(0, T + 1, (B,))
    index = {name: torch.randint(0, sources, (B,)) for name in ("static_index", "event_index")}
    results = [tk.time_step_mixup(static, events, switch_step, **index, backend=b) for b in ("native", "reference")]
    assert results[0].shape == (T, B, C, H, W)
    assert torch.equal(*results)


def test_non_contiguous_inputs(target):
    backend, device = target
    switch_step, *_ = indices(device)
    static = make((5, 2, 6, 4), torch.float32, device).transpose(2, 3)
    events = make((5, 4, 2, 4, 6), torch.int16, device).transpose(0, 1)
    results = [tk.time_step_mixup(static, events, switch_step, backend=b) for b in (backend, "reference")]
    assert torch.equal(*results)


def test_result_dtype():
    switch_step = torch.tensor([1])
    for static, events, expected in (
        (torch.uint8, torch.int16, torch.float32),
        (torch.uint8, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.bfloat16, torch.float32),
    ):
        mixed = tk.time_step_mixup(make((1, 1, 2, 2), static), make((2, 1, 1, 2, 2), events), switch_step)
        assert mixed.dtype == expected


def test_opcheck(kernel_target):
    backend, device = kernel_target
    suffix = "_triton" if backend == "triton" else ""
    switch_step, static_index, event_index = indices(device)
    static = make((6, 1, 4, 4), torch.float32, device).requires_grad_()
    events = make((4, 5, 2, 4, 4), torch.float32, device).requires_grad_()
    args = (static, events, switch_step, static_index, event_index, 0.5, 1.0)
    torch.library.opcheck(getattr(torch.ops.tmkt, "mixup_fwd" + suffix), (*args, torch.float32))
    grad = make((4, 5, 2, 4, 4), torch.float32, device)
    args = (static.detach(), events.detach(), *args[2:])
    backward = getattr(torch.ops.tmkt, "mixup_bwd" + suffix)
    torch.library.opcheck(backward, (grad, *args, True, True))
    torch.library.opcheck(backward, (grad, *args, False, True))


@pytest.mark.slow
def test_compiles_into_one_graph(target):
    backend, device = target
    torch._dynamo.reset()
    switch_step, static_index, event_index = indices(device)
    static = make((6, 1, 4, 4), torch.float32, device).requires_grad_()
    events = make((4, 5, 2, 4, 4), torch.int16, device)
    layer = tk.nn.TimeStepMixup(scale=(0.5, 0.25), backend=backend)
    compiled = torch.compile(layer, fullgraph=True)
    results = []
    for f in (layer, compiled):
        mixed = f(static, events, switch_step, static_index, event_index)
        results.append((mixed, torch.autograd.grad(mixed.square().sum(), static)[0]))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(eager, graph)


STATIC, EVENTS, STEPS = torch.zeros(3, 2, 4, 4), torch.zeros(5, 3, 2, 4, 4), torch.tensor([0, 1, 5])


def mix(static=STATIC, events=EVENTS, switch_step=STEPS, **kwargs):
    return tk.time_step_mixup(static, events, switch_step, **kwargs)


ERRORS = {
    "dimensions": (ValueError, r"expected \[Bs, C, H, W\]", lambda: mix(static=STATIC[0])),
    "plane": (ValueError, r"static: expected the events' C, H, W = \(2, 4, 4\)", lambda: mix(static=STATIC[..., :3])),
    "channels": (ValueError, "static: expected", lambda: mix(static=torch.zeros(3, 3, 4, 4))),
    "batch": (ValueError, "static_index: needed.* B = 3 .* source 2", lambda: mix(static=STATIC[:2])),
    "dtype in": (TypeError, "events: .* got torch.int64", lambda: mix(events=EVENTS.long())),
    "dtype out": (TypeError, "dtype: expected a float type", lambda: mix(dtype=torch.uint8)),
    "step dtype": (TypeError, "switch_step: expected int64", lambda: mix(switch_step=STEPS.int())),
    "step shape": (ValueError, "switch_step: .*got shape", lambda: mix(switch_step=STEPS[None])),
    "index shape": (ValueError, "event_index: expected shape", lambda: mix(event_index=STEPS[:2])),
    "step range": (IndexError, "switch_step: expected values in 0..5, got 1..6", lambda: mix(switch_step=STEPS + 1)),
    "negative": (IndexError, "static_index: .*got -1", lambda: mix(static_index=STEPS.clamp(max=1) - 1)),
    "index range": (IndexError, "event_index: expected values in 0..2, got 0..5", lambda: mix(event_index=STEPS)),
    "device": (ValueError, "static: expected a tensor on cpu", lambda: mix(static=STATIC.to("meta"))),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_named(name):
    error, message, call = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_operators_guard_direct_calls():
    with pytest.raises(RuntimeError, match=r"switch_step: expected values in 0..5, got 6 at 2"):
        torch.ops.tmkt.mixup_fwd(STATIC, EVENTS, STEPS + 1, None, None, 1.0, 1.0, torch.float32)
    with pytest.raises(RuntimeError, match="static_index: needed"):
        torch.ops.tmkt.mixup_fwd(STATIC[:2], EVENTS, STEPS, None, None, 1.0, 1.0, torch.float32)
    with pytest.raises(RuntimeError, match="grad: expected the shape"):
        torch.ops.tmkt.mixup_bwd(EVENTS[:2], STATIC, EVENTS, STEPS, None, None, 1.0, 1.0, True, True)
