"""The Triton kernels against the references: on a GPU where there is one, else through Triton's interpreter."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from tmkt_kernels import bn_lif, lif
from tmkt_kernels import surrogate as sg
from tmkt_kernels.ops.lif.recurrence import Recurrence, Reset
from tmkt_kernels.ops.lif.reference import lif_reference
from tmkt_kernels.ops.mixup.reference import mixup_reference
from tmkt_kernels.ops.scan_triton import MAX_CHUNK
from tmkt_kernels.testing import SURROGATE_SHAPES

pytest.importorskip("triton")
from tmkt_kernels.ops.lif.triton import lif_bwd, lif_fwd
from tmkt_kernels.ops.mixup.triton import mixup_bwd, mixup_fwd

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRAD_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
LENGTHS = (1, 3, 8, MAX_CHUNK, MAX_CHUNK + 1, 40)
NEURONS = 37  # odd: no two rows are aligned alike


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """fp32 as a kernel stores it: rounded to nearest, but Triton's interpreter cuts bf16 off."""
    if dtype is torch.bfloat16 and DEVICE == "cpu":
        value = (value.view(torch.int32) & -(1 << 16)).view(torch.float32)
    return value.to(dtype)


def assert_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.isfinite().all(), name
    error = (actual.double() - expected).norm() / expected.norm().clamp(min=1e-30)
    assert error < tolerance, f"{name}: relative L2 error {error:.2e}"


def forward(x: Tensor, v_init: Tensor | None, p: Recurrence, return_v: bool) -> tuple[Tensor, Tensor, Tensor]:
    return lif_fwd(x, v_init, p, 1, return_v)


def backward(
    grads: tuple[Tensor | None, ...], x: Tensor, v_init: Tensor | None, p: Recurrence
) -> tuple[Tensor, Tensor]:
    return lif_bwd(grads, x, v_init, p, 1, False)[:2]


def assert_forward_equals_reference(x: Tensor, v_init: Tensor | None, p: Recurrence) -> None:
    spikes, v_last, v_seq = lif_reference(x.float(), v_init, p, True)
    got = forward(x, v_init, p, True)
    assert x.numel() < NEURONS or 0 < spikes.mean() < 1
    for name, actual, expected in zip(("spikes", "v_last", "v_seq"), got, (spikes, v_last, v_seq), strict=True):
        dtype = torch.float32 if name == "v_last" else x.dtype
        assert actual.dtype == dtype
        assert torch.equal(actual, stored(expected, dtype)), name
    spikes_only, v_only, empty = forward(x, v_init, p, False)
    assert torch.equal(spikes_only, got[0])
    assert torch.equal(v_only, got[1])
    assert empty.shape == (0,)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("v_reset", [0.0, -0.3, None], ids=lambda v: f"reset{v}")
def test_lif_forward(dtype: torch.dtype, T: int, v_reset: float | None) -> None:
    p = Recurrence.lif(tau=1.7, decay_input=False, v_reset=v_reset)
    assert_forward_equals_reference(randn(T, NEURONS, dtype=dtype), None, p)


@pytest.mark.parametrize("tau, decay_input", list(itertools.product([1.0, 1.7, 2.0, math.inf], [True, False])))
def test_lif_forward_parameters(tau: float, decay_input: bool) -> None:
    p = Recurrence.lif(tau=tau, decay_input=decay_input, v_threshold=0.7, v_reset=0.1)
    assert_forward_equals_reference(randn(5, NEURONS), randn(NEURONS), p)


@pytest.mark.parametrize("N", [1, 8, 64, 66, 131, 520])
def test_lif_any_number_of_neurons(N: int) -> None:
    """Aligned and unaligned rows, one block and several, whole blocks and the rest of one."""
    x, v_init = randn(5, N), randn(N)
    p = Recurrence.lif()
    assert_forward_equals_reference(x, v_init, p)
    check_gradients(x, v_init, p, (randn(5, N), None, None))


def test_lif_empty() -> None:
    x, p = randn(3, 0), Recurrence.lif()
    assert [out.shape for out in forward(x, None, p, True)] == [(3, 0), (0,), (3, 0)]
    assert [out.shape for out in backward((x, None, None), x, None, p)] == [(3, 0), (0,)]


def gradients_at(
    x: Tensor, v_init: Tensor | None, spikes: Tensor, p: Recurrence, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor]:
    """Gradients of the reference's recurrence in float64, at the given spikes."""
    x = x.double().requires_grad_()
    rest = torch.full_like(x[0], p.v_reset) if v_init is None else v_init.double()
    v = v_init = rest.detach().requires_grad_()
    fired, charges = [], []
    for x_t, spikes_t in zip(x.unbind(0), spikes.double().unbind(0), strict=True):
        h = p.a * v + p.b * x_t + p.c
        u = h - p.v_threshold
        s = spikes_t + sg.derivative(u.detach(), sg.Surrogate(p.surrogate), p.alpha, p.beta) * (u - u.detach())
        r = s.detach() if p.detach_reset else s
        v = h - r * p.v_threshold if p.reset == Reset.SOFT else (1 - r) * h + r * p.v_reset
        fired.append(s)
        charges.append(h)
    outputs = (torch.stack(fired), v, torch.stack(charges))
    loss = sum((out * g.double()).sum() for out, g in zip(outputs, grads, strict=True) if g is not None)
    return torch.autograd.grad(loss, (x, v_init))


def check_gradients(x: Tensor, v_init: Tensor | None, p: Recurrence, grads: tuple[Tensor | None, ...]) -> None:
    spikes, _, _ = forward(x, v_init, p, False)
    expected_x, expected_v = gradients_at(x, v_init, spikes, p, grads)
    grad_x, grad_v = backward(grads, x, v_init, p)
    assert grad_x.dtype == x.dtype
    assert grad_v.dtype == torch.float32
    assert_close("grad_x", grad_x, expected_x, GRAD_TOLERANCE[x.dtype])
    if v_init is None:
        assert grad_v.numel() == 0
    else:
        assert_close("grad_v_init", grad_v, expected_v, 1e-5)


def all_grads(T: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return randn(T, NEURONS, dtype=dtype), randn(NEURONS), randn(T, NEURONS, dtype=dtype)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lif_gradients(dtype: torch.dtype, T: int) -> None:
    p = Recurrence.lif(tau=1.7, detach_reset=False)
    check_gradients(randn(T, NEURONS, dtype=dtype), randn(NEURONS), p, all_grads(T, dtype))


@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.2, None], ids=lambda v: f"reset{v}")
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("T", [3, MAX_CHUNK + 1])
def test_lif_gradients_of_each_neuron(T: int, detach_reset: bool, v_reset: float | None, surrogate: str) -> None:
    p = Recurrence.lif(
        tau=3.0,
        decay_input=False,
        v_threshold=0.8,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=1.3,
    )
    check_gradients(randn(T, NEURONS), None, p, (randn(T, NEURONS), None, None))


@pytest.mark.parametrize("surrogate", sg.Surrogate, ids=lambda s: s.name.lower())
def test_lif_gradients_of_each_surrogate(surrogate: sg.Surrogate) -> None:
    p = Recurrence.lif(v_threshold=0.8, surrogate=surrogate.name.lower(), alpha=SURROGATE_SHAPES[surrogate][0])
    check_gradients(randn(3, NEURONS), None, p, (randn(3, NEURONS), None, None))


@pytest.mark.parametrize("tau", [1.0, 2.0, math.inf])
def test_lif_gradients_of_each_tau(tau: float) -> None:
    check_gradients(randn(6, NEURONS), randn(NEURONS), Recurrence.lif(tau=tau), all_grads(6))


@pytest.mark.parametrize("present", list(itertools.product([True, False], repeat=3)), ids=str)
def test_lif_gradients_that_are_none(present: tuple[bool, ...]) -> None:
    T = MAX_CHUNK + 1
    grads = tuple(g if there else None for g, there in zip(all_grads(T), present, strict=True))
    x, p = randn(T, NEURONS), Recurrence.lif(detach_reset=False)
    if any(present):
        check_gradients(x, None, p, grads)
    else:
        assert not any(g.any() for g in backward(grads, x, None, p))


@pytest.mark.parametrize("surrogate", ["triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_lif_dyadic_inputs_are_exact(surrogate: str, v_reset: float | None, detach_reset: bool) -> None:
    """No rounding anywhere, thresholds and the surrogates' edges hit exactly: every bit must agree."""
    tau = 2.0 if detach_reset else math.inf  # the products of an attached reset would outgrow fp32 at tau = 2
    p = Recurrence.lif(tau=tau, surrogate=surrogate, v_reset=v_reset, detach_reset=detach_reset, alpha=1.0)
    x = (torch.randint(-8, 17, (4, NEURONS), device=DEVICE) / 4).requires_grad_()
    v_init = (torch.randint(-4, 5, (NEURONS,), device=DEVICE) / 4).requires_grad_()
    grads = torch.randint(-4, 5, (9, NEURONS), device=DEVICE).float()
    grads = (grads[:4], grads[4], grads[5:])
    expected = lif_reference(x.double(), v_init.double(), p, True)
    actual = torch.ops.tmkt.lif_fwd_triton(x, v_init, None, 1, *p.scalars, True)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a.double(), e)
    got = torch.autograd.grad(actual, (x, v_init), grads)
    want = torch.autograd.grad(expected, (x, v_init), [g.double() for g in grads])
    for a, e in zip(got, want, strict=True):
        assert torch.equal(a, e)


def test_lif_unknown_surrogate_is_an_error() -> None:
    p = Recurrence.lif()._replace(surrogate=99)
    x = randn(2, NEURONS)
    with pytest.raises(Exception, match="unknown surrogate"):
        backward((x, None, None), x, None, p)


def test_lif_public_function_keeps_layout() -> None:
    x = randn(3, 2, 3, 5, 4).permute(0, 1, 4, 2, 3).requires_grad_()  # channels_last steps
    actual, expected = (lif(x, tau=1.7, return_v=True, backend=b) for b in ("triton", "reference"))
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)
    assert actual[0].stride() == x.stride()
    grads = [torch.autograd.grad(out[0].sum() + out[1].sum(), x)[0] for out in (actual, expected)]
    assert_close("grad_x", grads[0], grads[1].double(), 1e-5)


def test_lif_opcheck() -> None:
    x, v_init = randn(3, NEURONS).requires_grad_(), randn(NEURONS).requires_grad_()
    torch.library.opcheck(torch.ops.tmkt.lif_fwd_triton, (x, v_init, None, 1, *Recurrence.lif().scalars, True))


# bn_lif


def test_bn_lif_statistics_far_from_zero() -> None:
    x = randn(8, 4, 6, 20) + 1e4
    mean, var = bn_lif(x, backend="triton")[2:]
    true_var, true_mean = torch.var_mean(x.double(), dim=(0, 1, 3), correction=0)
    torch.testing.assert_close(mean.double(), true_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), true_var, rtol=1e-4, atol=0)


# mixup

T, B, BS, BE = 3, 5, 4, 4
SWITCH_STEP = torch.tensor([0, 3, 1, 2, 3], device=DEVICE)
STATIC_INDEX = torch.tensor([1, 3, 1, 0, 1], device=DEVICE)  # image 2 is used nowhere
EVENT_INDEX = torch.tensor([3, 3, 0, 3, 1], device=DEVICE)  # recording 2 is used nowhere
INDICES = (SWITCH_STEP, STATIC_INDEX, EVENT_INDEX)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mixup_dyadic_gradients_are_exact(dtype: torch.dtype) -> None:
    static, events = randn(BS, 1, 4, 4, dtype=dtype), randn(T, BE, 2, 4, 4, dtype=dtype)
    grad = torch.randint(-2, 3, (T, B, 2, 4, 4), device=DEVICE).to(dtype)
    got = mixup_bwd(grad, static, events, *INDICES, 0.5, 2.0, True, True)
    leaves = static.double().requires_grad_(), events.double().requires_grad_()
    expected = mixup_reference(*leaves, *INDICES, 0.5, 2.0, torch.float64)
    for a, e in zip(got, torch.autograd.grad(expected, leaves, grad.double()), strict=True):
        assert a.dtype == dtype
        assert torch.equal(a.double(), e)


def test_mixup_needs_no_gradient_of_a_source() -> None:
    static, events, grad = randn(BS, 2, 2, 2), randn(T, BE, 2, 2, 2), randn(T, B, 2, 2, 2)
    both = mixup_bwd(grad, static, events, *INDICES, 1.0, 1.0, True, True)
    only_static = mixup_bwd(grad, static, events, *INDICES, 1.0, 1.0, True, False)
    only_events = mixup_bwd(grad, static, events, *INDICES, 1.0, 1.0, False, True)
    assert torch.equal(only_static[0], both[0])
    assert torch.equal(only_events[1], both[1])
    assert only_static[1].shape == only_events[0].shape == (0,)


def test_mixup_empty() -> None:
    static, events = randn(BS, 2, 2, 2), randn(T, BE, 2, 2, 2)
    index = [i[:0] for i in INDICES]
    assert mixup_fwd(static, events, *index, 1.0, 1.0, torch.float32).shape == (T, 0, 2, 2, 2)
    grad_static, grad_events = mixup_bwd(randn(T, 0, 2, 2, 2), static, events, *index, 1.0, 1.0, True, True)
    assert not grad_static.any()
    assert not grad_events.any()


@pytest.mark.skipif(DEVICE == "cuda", reason="a device-side assertion ends the CUDA context")
@pytest.mark.parametrize("name, value", [("switch_step", T + 1), ("static_index", BS), ("event_index", BE)])
@pytest.mark.parametrize("below", [False, True])
def test_mixup_out_of_range(monkeypatch: pytest.MonkeyPatch, name: str, value: int, below: bool) -> None:
    from triton.runtime.interpreter import interpreter_builder as builder

    # The interpreter ignores the launch's debug=True.
    monkeypatch.setattr(builder, "options", dataclasses.replace(builder.options, debug=True))
    index = {"switch_step": SWITCH_STEP, "static_index": STATIC_INDEX, "event_index": EVENT_INDEX}
    index[name] = index[name].clone()
    index[name][-1] = -1 if below else value
    static, events, grad = randn(BS, 2, 2, 2), randn(T, BE, 2, 2, 2), randn(T, B, 2, 2, 2)
    with pytest.raises(Exception, match=name):
        mixup_fwd(static, events, *index.values(), 1.0, 1.0, torch.float32)
    for need_static in (True, False):
        with pytest.raises(Exception, match=name):
            mixup_bwd(grad, static, events, *index.values(), 1.0, 1.0, need_static, not need_static)


def test_mixup_opcheck() -> None:
    static, events = randn(BS, 1, 2, 2).requires_grad_(), randn(T, BE, 2, 2, 2).requires_grad_()
    args = (static, events, *INDICES, 0.7, 1.3, torch.float32)
    torch.library.opcheck(torch.ops.tmkt.mixup_fwd_triton, args)
