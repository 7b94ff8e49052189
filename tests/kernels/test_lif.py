"""tmkt_kernels.lif: every backend against the reference, by the case table of tmkt_kernels.testing."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tmkt_kernels as tk
from tmkt_kernels.ops.layout import memory_order, to_memory_order
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.testing import (
    LIF_CASES,
    LIFCase,
    assert_gradient_close,
    assert_spikes_equal,
    assert_stored_equal,
    lif_inputs,
    lif_run,
    lif_truth,
    without_flips,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
cases = pytest.mark.parametrize("case", LIF_CASES, ids=lambda case: case.name)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])


@cases
@dtypes
def test_each_case(case, dtype, every_target):
    """Forward equals the reference bit for bit, and gradients those of the reference in float64."""
    backend, device = every_target
    inputs = lif_inputs(case, dtype, device)
    expected, _ = lif_run(case, inputs, "reference")
    same = (expected[0] == lif_truth(case, inputs)[0][0]).all(0)  # neurons without a rounding flip
    assert same.double().mean() > 0.999
    inputs = without_flips(inputs, same)
    outputs, grads = lif_run(case, inputs, backend)
    assert_spikes_equal(outputs[0], expected[0])
    for actual, reference in zip(outputs, expected, strict=True):
        assert_stored_equal(actual, reference, backend)
    for grad, exact in zip(grads, lif_truth(case, inputs)[1], strict=True):
        assert_gradient_close(grad, exact, dtype)


def test_the_cases_exercise_the_neuron():
    for case in LIF_CASES:
        spikes = lif_run(case, lif_inputs(case, torch.float32), "reference")[0][0]
        assert spikes.numel() <= 100 or 0.01 < spikes.mean() < 0.99, case.name


@pytest.mark.parametrize("v_reset", [0.0, None], ids=["hard", "soft"])
@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0, math.inf])
def test_dyadic_inputs_are_exact_in_any_precision(tau, v_reset, every_target):
    backend, device = every_target
    case = LIFCase("dyadic", (6, 4, 33), {"tau": tau, "v_reset": v_reset})
    inputs = lif_inputs(case, torch.float32, device, dyadic=True)
    outputs, _ = lif_run(case, inputs, backend)
    for actual, expected in zip(outputs, lif_truth(case, inputs)[0], strict=True):
        assert torch.equal(actual.double(), expected)


@pytest.mark.parametrize("surrogate", ["triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.0, None], ids=["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [True, False], ids=["detached", "attached"])
def test_dyadic_gradients_are_exact(detach_reset, v_reset, surrogate, every_target):
    """Nothing rounds, and inputs hit thresholds and the surrogates' edges exactly, so that every bit must agree."""
    backend, device = every_target
    tau = 2.0 if detach_reset else math.inf  # the products of an attached reset would exceed fp32 at tau = 2
    neuron = {"tau": tau, "surrogate": surrogate, "alpha": 1.0, "v_reset": v_reset, "detach_reset": detach_reset}
    case = LIFCase("dyadic", (4, 1, 37), neuron)
    inputs = lif_inputs(case, torch.float32, device, dyadic=True)
    exact = {name: value.double() for name, value in inputs.items() if name != "grads"} | {"grads": inputs["grads"]}
    (outputs, grads), (expected, expected_grads) = lif_run(case, inputs, backend), lif_run(case, exact, "reference")
    for actual, value in zip((*outputs, *grads), (*expected, *expected_grads), strict=True):
        assert torch.equal(actual.double(), value.double())


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 40),
    batch=st.integers(0, 5),
    width=st.integers(0, 300),
    tau=st.floats(1, 50),
    v_threshold=st.floats(0.1, 2),
    v_reset=st.none() | st.floats(-0.5, 0.5),
    decay_input=st.booleans(),
    with_v_init=st.booleans(),
)
def test_any_size_and_parameter(T, batch, width, tau, v_threshold, v_reset, decay_input, with_v_init):
    neuron = {"tau": tau, "v_threshold": v_threshold, "v_reset": v_reset, "decay_input": decay_input}
    case = LIFCase("any", (T, batch, width), neuron, v_init=with_v_init)
    inputs = lif_inputs(case, torch.float32)
    outputs, grads = lif_run(case, inputs, "native")
    expected, expected_grads = lif_run(case, inputs, "reference")
    for actual, reference in zip(outputs, expected, strict=True):
        assert torch.equal(actual, reference)
    for grad, reference in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, reference, rtol=1e-4, atol=1e-5)


def test_reference_is_the_textbook_neuron():
    """Against the plain formula v + (x - (v - v_reset)) / tau, which rounds in another order."""
    x = torch.randn(12, 50_000) * 1.5
    spikes, _ = tk.lif(x, tau=1.7, v_reset=0.2, backend="reference")
    v, expected = torch.full((50_000,), 0.2), []
    for step in x:
        v = v + (step - (v - 0.2)) / 1.7
        expected.append((v >= 1).float())
        v = torch.where(v >= 1, 0.2, v)
    assert_spikes_equal(spikes, torch.stack(expected), budget=1e-5)


@pytest.mark.parametrize("steps", [5, 17], ids=["short", "two-chunks"])
@pytest.mark.parametrize("used", [u for n in (1, 2, 3) for u in itertools.combinations(range(3), n)], ids=str)
def test_any_output_may_go_without_a_gradient(used, steps, every_target):
    backend, device = every_target
    case = LIFCase("partial", (steps, 2, 33))
    inputs = lif_inputs(case, torch.float32, device)
    results = []
    for name in (backend, "reference"):
        x = inputs["x_seq"].clone().requires_grad_()
        outputs = tk.lif(x, inputs["v_init"], return_v=True, backend=name)
        wanted = [outputs[i] for i in used], [inputs["grads"][i] for i in used]
        results.append(torch.autograd.grad(wanted[0], x, wanted[1])[0])
    assert_gradient_close(*results, torch.float32)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x),
    "batch_innermost": lambda x: x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
    "sliced_width": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "time_innermost": lambda x: x.permute(1, 2, 3, 4, 0).contiguous().permute(4, 0, 1, 2, 3),
    "every_other_step": lambda x: x.repeat_interleave(2, 0)[::2],
}

DENSE_LAYOUTS = ("contiguous", "channels_last", "batch_innermost")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, every_target):
    backend, device = every_target
    base = torch.randn(4, 3, 5, 6, 7, device=device) * 1.5
    x = LAYOUTS[layout](base).detach().requires_grad_()
    plain = base.clone().requires_grad_()
    assert torch.equal(x, plain)
    outputs = tk.lif(x, torch.ones_like(base[0]), return_v=True, backend=backend)
    expected = tk.lif(plain, torch.ones_like(base[0]), return_v=True, backend=backend)
    for actual, reference in zip(outputs, expected, strict=True):
        assert torch.equal(actual, reference)
    grad = torch.randn_like(base).transpose(3, 4).contiguous().transpose(3, 4)
    assert torch.equal(torch.autograd.grad(outputs[0], x, grad)[0], torch.autograd.grad(expected[0], plain, grad)[0])
    assert outputs[0].stride() == x.stride() or layout not in DENSE_LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dense_layouts_are_not_copied(layout):
    x = LAYOUTS[layout](torch.randn(4, 3, 5, 6, 7))
    dense = to_memory_order(x, memory_order(x))
    assert (dense.data_ptr() == x.data_ptr()) is (layout in DENSE_LAYOUTS)


def test_expanded_gradient():
    x = (torch.randn(4, 3, 9) * 2).requires_grad_()
    spikes, _ = tk.lif(x, backend="native")
    grads = torch.autograd.grad(spikes.sum(), x)[0]
    expected = torch.autograd.grad(tk.lif(x, backend="reference")[0].sum(), x)[0]
    assert_gradient_close(grads, expected, torch.float32)


def test_backward_keeps_x_alone():
    kept = []
    x = torch.randn(6, 4, 100, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        tk.lif(x * 1.0, backend="native")
    assert [t.numel() for t in kept] == [x.numel()]


def test_same_bits_every_run_and_thread_count(target):
    backend, device = target
    case = LIFCase("bits", (10, 8, 4099))
    inputs = lif_inputs(case, torch.float32, device)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            outputs, grads = lif_run(case, inputs, backend)
            results.append((*outputs, *grads))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


OPCHECK_CASES = [
    c for c in LIF_CASES if c.name in ("default", "soft-attached", "one-step", "channel-all", "leaky-zero")
]


@pytest.mark.parametrize("case", OPCHECK_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("return_v", [False, True])
def test_opcheck(case, return_v, kernel_target):
    backend, device = kernel_target
    suffix = "_triton" if backend == "triton" else ""
    inputs = lif_inputs(case, torch.float32, device)
    x, v_init = inputs["x_seq"].requires_grad_(), inputs["v_init"]
    v_init = None if v_init is None else v_init.requires_grad_()
    neuron = (Recurrence.leaky if "beta" in case.neuron else Recurrence.lif)(**case.keywords(device))
    coefficients = neuron.coefficients
    coefficients = None if coefficients is None else coefficients.detach().requires_grad_()
    extra = (coefficients, x[0, 0, 0].numel() if coefficients is not None else 1, *neuron.scalars())
    torch.library.opcheck(getattr(torch.ops.tmkt, "lif_fwd" + suffix), (x, v_init, *extra, return_v))
    grads = (*inputs["grads"][:2], inputs["grads"][2] if return_v else None)
    plain = [t if t is None else t.detach() for t in (x, v_init, coefficients)]
    arguments = (*grads, *plain, *extra[1:], coefficients is not None)
    torch.library.opcheck(getattr(torch.ops.tmkt, "lif_bwd" + suffix), arguments)


@pytest.mark.slow
def test_compiles_into_one_graph(target):
    backend, device = target
    torch._dynamo.reset()

    def step(x, v_init):
        spikes, v_last, v_seq = tk.lif(x * 1.5, v_init, tau=1.7, surrogate="triangle", return_v=True, backend=backend)
        return (spikes * 2).sum() + v_last.sum() + v_seq.square().sum()

    compiled = torch.compile(step, fullgraph=True)
    for layout in ("contiguous", "channels_last"):
        x = LAYOUTS[layout](torch.randn(4, 2, 3, 5, 5, device=device)).requires_grad_()
        v_init = torch.rand(2, 3, 5, 5, device=device, requires_grad=True)
        results = [(f(x, v_init), *torch.autograd.grad(f(x, v_init), (x, v_init))) for f in (step, compiled)]
        for eager, graph in zip(*results, strict=True):
            torch.testing.assert_close(eager, graph, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast(dtype, target):
    backend, device = target
    linear = torch.nn.Linear(8, 16).to(device)
    x = torch.randn(4, 3, 8, device=device)
    with torch.autocast(device, dtype):
        spikes, v_last = tk.lif(linear(x) * 3, backend=backend)
        spikes.sum().backward()
    assert spikes.dtype == dtype
    assert v_last.dtype == torch.float32
    expected = torch.nn.Linear(8, 16).to(device)
    expected.load_state_dict(linear.state_dict())
    with torch.autocast(device, dtype):
        current = expected(x) * 3
    tk.lif(current.float(), backend="reference")[0].sum().backward()
    assert_gradient_close(linear.weight.grad, expected.weight.grad, dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("backend", ["native", "triton"])
def test_cuda_graph(backend):
    x = torch.randn(4, 3, 64, device="cuda")
    tk.lif(x, backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        spikes, _ = tk.lif(x, backend=backend)
    x.copy_(torch.randn_like(x) * 2)
    graph.replay()
    assert torch.equal(spikes, tk.lif(x, backend="reference")[0])


X = torch.zeros(4, 2, 3)
ERRORS = {
    "not a tensor": (TypeError, "expected a tensor", lambda: tk.lif([1.0])),
    "integer input": (TypeError, "floating-point tensor, got torch.int64", lambda: tk.lif(X.long())),
    "no batch": (ValueError, r"\[T, B, ...\] with T >= 1, got shape \(4,\)", lambda: tk.lif(torch.zeros(4))),
    "no time": (ValueError, "T >= 1", lambda: tk.lif(torch.zeros(0, 3))),
    "v_init shape": (ValueError, r"v_init: expected .*\(2, 3\), got \(3, 2\)", lambda: tk.lif(X, torch.zeros(3, 2))),
    "v_init dtype": (TypeError, "v_init: .*got torch.int64", lambda: tk.lif(X, X[0].long())),
    "tau": (ValueError, "tau: expected .* at least 1", lambda: tk.lif(X, tau=0.5)),
    "tau nan": (ValueError, "tau", lambda: tk.lif(X, tau=math.nan)),
    "tau type": (TypeError, "tau: expected a float or a tensor, got str", lambda: tk.lif(X, tau="2")),
    "tau channels": (ValueError, r"values for 2 channels; expected \[T, B, 2", lambda: tk.lif(X, tau=torch.ones(2))),
    "tau shape": (ValueError, r"tau: expected .*\[C\].*\(2, 3\)", lambda: tk.lif(X, tau=torch.ones(2, 3))),
    "tau integer": (TypeError, "expected a floating-point tensor", lambda: tk.lif(X, v_threshold=torch.ones(3).int())),
    "sizes differ": (
        ValueError,
        "v_threshold: expected 1 or 3 values, .* got 2",
        lambda: tk.lif(X, tau=torch.ones(3), v_threshold=torch.ones(2)),
    ),
    "beta": (ValueError, "beta: expected a decay from 0 to 1, got 1.5", lambda: tk.leaky(X, beta=1.5)),
    "mechanism": (ValueError, "'subtract', 'zero' or 'none'", lambda: tk.leaky(X, beta=1, reset_mechanism="hard")),
    "pair": (ValueError, r"alpha: expected a pair", lambda: tk.lif(X, surrogate="s2nn", alpha=2.0)),
    "no pair": (ValueError, "alpha: expected a float", lambda: tk.lif(X, alpha=(2.0, 1.0))),
    "own surrogate": (
        RuntimeError,
        "surrogate is a function.*backend='reference'",
        lambda: tk.lif(X, surrogate=lambda u, alpha: u * 0 + alpha),
    ),
    "threshold": (ValueError, "v_threshold", lambda: tk.lif(X, v_threshold=math.inf)),
    "alpha": (ValueError, "alpha", lambda: tk.lif(X, alpha=0.0)),
    "surrogate": (ValueError, "'atan', 'sigmoid', .* got 'tanh'", lambda: tk.lif(X, surrogate="tanh")),
    "backend": (ValueError, "backend: expected 'auto'.* got 'cuda'", lambda: tk.lif(X, backend="cuda")),
    "float64": (RuntimeError, "native.*float64.*reference", lambda: tk.lif(X.double(), backend="native")),
    "device": (RuntimeError, "there is no|kernels exist for", lambda: tk.lif(X.to("meta"), backend="native")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_named(name):
    error, message, call = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(3, 0), (3, 2, 0)], ids=str)
def test_no_neurons(shape, every_target):
    backend, device = every_target
    x = torch.empty(shape, device=device, requires_grad=True)
    spikes, v_last, v_seq = tk.lif(x, return_v=True, backend=backend)
    assert (spikes.shape, v_last.shape, v_seq.shape) == (shape, shape[1:], shape)
    assert torch.autograd.grad(spikes.sum() + v_last.sum(), x)[0].shape == shape


def test_an_unknown_surrogate_is_an_error_in_triton():
    pytest.importorskip("triton")
    from tmkt_kernels.ops.lif.triton import lif_bwd

    x = torch.zeros(2, 8, device="cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(Exception, match="unknown surrogate"):
        lif_bwd((x, None, None), x, None, Recurrence.lif()._replace(surrogate=99), 1, False)


def test_operators_guard_direct_calls():
    params = (None, 1, *Recurrence.lif().scalars())
    X = torch.zeros(4, 6)
    for x, v_init, message in (
        (torch.zeros(()), None, r"\[T, ...\] with T >= 1"),
        (X.t(), None, "contiguous"),
        (X.double(), None, "float32, bfloat16 or float16"),
        (X, torch.zeros(5), "v_init: expected the shape of one step of x"),
        (X, torch.zeros(6).double(), "v_init: expected dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.tmkt.lif_fwd(x, v_init, *params, False)
    for coefficients, inner, message in (
        (torch.zeros(4, 1), 1, "expected .5, channels. .* got channels = 1"),
        (torch.zeros(5, 4), 1, "a divisor of N = 6, got channels = 4, inner = 1"),
        (torch.zeros(5, 1).double(), 1, "coefficients: expected dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.tmkt.lif_fwd(X, None, coefficients, inner, *Recurrence.lif().scalars(), False)
    for field in ("surrogate", "reset"):
        arguments = (X, None, None, X, None, None, 1, *Recurrence.lif()._replace(**{field: 99}).scalars(), False)
        with pytest.raises(RuntimeError, match=f"{field}: unknown number 99"):
            torch.ops.tmkt.lif_bwd(*arguments)
