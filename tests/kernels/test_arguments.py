"""Arguments: every backend serves odd strides and dtypes in the same way, and refuses all else with a clear message."""

import math
import re

import numpy as np
import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.surrogate import Surrogate
from tmkt_kernels.testing import SURROGATE_SHAPES, assert_gradient_close

X = torch.randn(4, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
VECTORS = {
    "expanded": lambda v: v[:1].expand(5),
    "strided": lambda v: v[:, None].repeat(1, 2)[:, 0],
    "offset": lambda v: torch.cat([v[:1], v])[1:],
    "negated": lambda v: torch._neg_view(-v),
    "bfloat16": lambda v: v.bfloat16(),
    "float16": lambda v: v.half(),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_of_bn_lif(kind, every_target):
    backend, device = every_target
    base = torch.rand(5, generator=torch.Generator().manual_seed(1)).add(0.5).to(device)
    x = X.to(device)
    for names in (("weight", "bias"), ("mean", "var")):
        odd = {name: VECTORS[kind](base) for name in names}
        plain = {name: vector.resolve_neg().float().contiguous() for name, vector in odd.items()}
        for actual, expected in zip(
            tk.bn_lif(x, **odd, backend=backend)[:2], tk.bn_lif(x, **plain, backend=backend)[:2], strict=True
        ):
            assert torch.equal(actual, expected)
    leaf = base.to(VECTORS[kind](base).dtype).requires_grad_()
    spikes = tk.bn_lif(x, VECTORS[kind](leaf), backend=backend)[0]
    (gradient,) = torch.autograd.grad(spikes.square().sum(), leaf)
    reference = base.double().to(leaf.dtype).double().requires_grad_()
    exact = tk.bn_lif(x.double(), VECTORS[kind](reference) if "float" not in kind else reference, backend="reference")[
        0
    ]
    assert torch.equal(spikes.double(), exact)
    assert_gradient_close(gradient, torch.autograd.grad(exact.square().sum(), reference)[0], leaf.dtype)


@pytest.mark.parametrize("kind", [k for k in VECTORS if "float" not in k])
def test_tensor_parameters_of_lif(kind, every_target):
    backend, device = every_target
    values = torch.linspace(1.2, 3, 5, device=device)
    odd, x = VECTORS[kind](values), X.to(device)
    plain = odd.resolve_neg().contiguous()
    for actual, expected in zip(
        (*tk.lif(x, tau=odd, backend=backend), *tk.leaky(x, beta=odd / 4, backend=backend)),
        (*tk.lif(x, tau=plain, backend=backend), *tk.leaky(x, beta=plain / 4, backend=backend)),
        strict=True,
    ):
        assert torch.equal(actual, expected)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        wide = torch.tensor([1.5, 2.0, 2.5, 3.0, 4.0], dtype=torch.float64, device=device)
        spikes = tk.lif(x, tau=wide.to(dtype), backend=backend)[0]
        assert torch.equal(spikes, tk.lif(x, tau=wide.to(dtype).double(), backend="reference")[0])


def test_wide_parameters_keep_their_digits():
    x, tau = torch.full((30, 1, 1), 3.0, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    _, v = tk.lif(x, tau=tau, v_threshold=100.0)
    assert torch.equal(v, tk.lif(x, tau=3.0, v_threshold=100.0)[1])


@pytest.mark.parametrize("kind", ["expanded", "strided", "float64", "half", "negated"])
def test_v_init(kind, every_target):
    backend, device = every_target
    base = torch.randn(3, 5, 2, 2, generator=torch.Generator().manual_seed(2)).to(device)
    odd = {
        "expanded": base[:1].expand_as(base),
        "strided": base.repeat(1, 1, 1, 2)[..., ::2],
        "float64": base.double(),
        "half": base.half(),
        "negated": torch._neg_view(-base),
    }[kind]
    plain = odd.resolve_neg().float().contiguous()
    for call in (tk.lif, lambda x, v, backend: tk.bn_lif(x, v_init=v, backend=backend)):
        for actual, expected in zip(
            call(X.to(device), odd, backend=backend), call(X.to(device), plain, backend=backend), strict=True
        ):
            assert torch.equal(actual, expected)


def test_x_seq_of_any_strides(every_target):
    backend, device = every_target
    x = X.to(device)
    for odd in (x[:1].expand(4, -1, -1, -1, -1), x[:, :1].expand(-1, 3, -1, -1, -1), torch._neg_view(-x), x[..., :1]):
        plain = odd.resolve_neg().contiguous()
        for call in (tk.lif, tk.bn_lif):
            for actual, expected in zip(call(odd, backend=backend), call(plain, backend=backend), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("odd", [lambda i: torch.stack([i, i], 1)[:, 0], lambda i: torch.cat([i[:1], i])[1:]])
def test_indices_of_mixup(odd, every_target):
    backend, device = every_target
    static, events = X[0].to(device), X.to(device)
    steps, pairs = torch.tensor([0, 4, 2], device=device), torch.tensor([2, 0, 0], device=device)
    plain = tk.time_step_mixup(static, events, steps, static_index=pairs, event_index=pairs, backend="reference")
    assert torch.equal(
        plain,
        tk.time_step_mixup(
            static, events, odd(steps), static_index=odd(pairs), event_index=odd(pairs), backend=backend
        ),
    )
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    mixed = tk.time_step_mixup(static, events, zero.expand(3), static_index=zero.expand(3), backend=backend)
    assert torch.equal(mixed, events)


BAD_TENSORS = {
    "list": [[1.0]],
    "numpy": np.zeros((4, 3, 5, 2, 2), np.float32),
    "number": 0.0,
    "sparse": X.to_sparse(),
    "float8": X.to(torch.float8_e4m3fn),
    "complex": X.to(torch.complex64),
    "bool": X > 0,
    "integer": X.long(),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_what_is_no_floating_tensor_is_refused(name, every_target):
    backend, _ = every_target
    bad = BAD_TENSORS[name]
    message = r"{}: expected .*; (convert it|make it dense)|{}: expected a tensor .*, got (list|ndarray|float)"
    part = bad[0] if isinstance(bad, torch.Tensor) and name != "sparse" else bad
    steps = torch.zeros(3, dtype=torch.int64)
    for argument, call in {
        "x_seq": lambda: tk.lif(bad, backend=backend),
        "x_seq ": lambda: tk.leaky(bad, beta=0.9, backend=backend),
        "x_seq  ": lambda: tk.bn_lif(bad, backend=backend),
        "x_seq   ": lambda: nn.BatchNormLIF2d(5, backend=backend)(bad),
        "x_seq    ": lambda: nn.LIF(backend=backend)(bad),
        "v_init": lambda: tk.lif(X, part, backend=backend),
        "v_init ": lambda: tk.bn_lif(X, v_init=part, backend=backend),
        "weight": lambda: tk.bn_lif(X, part, backend=backend),
        "bias": lambda: tk.bn_lif(X, None, part, backend=backend),
        "mean": lambda: tk.bn_lif(X, mean=part, var=part, backend=backend),
        "events": lambda: tk.time_step_mixup(X[0], bad, steps, backend=backend),
        "static": lambda: tk.time_step_mixup(part, X, steps, backend=backend),
    }.items():
        with pytest.raises(TypeError, match=message.format(*[argument.strip()] * 2)):
            call()
    with pytest.raises(TypeError, match="switch_step: expected"):
        tk.time_step_mixup(X[0], X, X[0, 0, 0, 0] if name == "integer" else bad, backend=backend)


BAD_CALLS = {
    "tau and v_reset": (
        ValueError,
        "v_reset: expected 1 or 5 values",
        lambda: tk.lif(X, tau=X.new_ones(5) + 1, v_reset=X.new_ones(4)),
    ),
    "tau shape": (
        ValueError,
        r"tau: expected one value.*\[C\]; got shape \(4, 1, 1\)",
        lambda: tk.lif(X, tau=torch.ones(4, 1, 1)),
    ),
    "beta shape": (
        ValueError,
        r"beta: expected one value.*got shape \(4, 1\)",
        lambda: tk.leaky(X, beta=torch.ones(4, 1)),
    ),
    "huge tau": (ValueError, "tau: expected a finite float", lambda: tk.lif(X, tau=10**400)),
    "threshold nan": (
        ValueError,
        "threshold: expected a finite float",
        lambda: tk.leaky(X, beta=0.9, threshold=math.nan),
    ),
    "threshold -inf": (ValueError, "threshold: .* finite", lambda: tk.leaky(X, beta=0.9, threshold=-math.inf)),
    "beta nan": (ValueError, "beta: expected a finite float", lambda: tk.leaky(X, beta=math.nan)),
    "bn tau": (TypeError, "tau: expected a float, got Tensor", lambda: tk.bn_lif(X, tau=torch.tensor(2.0))),
    "tau True": (TypeError, "tau: expected a float", lambda: tk.lif(X, tau=True)),
    "v_reset False": (TypeError, "v_reset: expected a finite float, or None", lambda: tk.lif(X, v_reset=False)),
    "v_threshold True": (TypeError, "v_threshold: expected a finite float", lambda: nn.LIF(v_threshold=True)),
    "detach_reset text": (TypeError, "detach_reset: expected True or False", lambda: tk.lif(X, detach_reset="no")),
    "decay_input None": (TypeError, "decay_input: expected True or False", lambda: tk.bn_lif(X, decay_input=None)),
    "alpha": (ValueError, "alpha: expected a value above 0.0, got -1", lambda: tk.lif(X, alpha=-1)),
    "eps": (ValueError, "eps: expected a finite float of 0 or more, got -1", lambda: tk.bn_lif(X, eps=-1)),
    "eps nan": (ValueError, "eps: expected", lambda: tk.bn_lif(X, eps=math.nan)),
    "double weight": (
        TypeError,
        r"weight: expected torch.float32 .*got torch.float64; call .double\(\) on x_seq",
        lambda: nn.BatchNormLIF2d(5).double()(X),
    ),
    "0-d weight": (ValueError, r"weight: expected \[5\]", lambda: tk.bn_lif(X, torch.tensor(1.0))),
    "meta weight": (ValueError, "weight: expected .* on cpu", lambda: tk.bn_lif(X, torch.ones(5, device="meta"))),
    "scale of 3": (
        ValueError,
        "scale: expected one factor, or a pair",
        lambda: tk.nn.TimeStepMixup(scale=(1, 2, 3))(X[0], X, torch.zeros(3, dtype=torch.int64)),
    ),
    "scale list": (
        TypeError,
        "scale: expected a finite float, or a pair",
        lambda: tk.time_step_mixup(X[0], X, torch.zeros(3, dtype=torch.int64), scale=[1, 2]),
    ),
    "dtype": (
        TypeError,
        "dtype: expected a float type",
        lambda: tk.time_step_mixup(X[0], X, torch.zeros(3, dtype=torch.int64), dtype=torch.float8_e5m2),
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_values_are_named(name):
    error, message, call = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        call()


def test_no_message_names_a_source_file():
    x = torch.zeros(3, 4, 5)
    params = Recurrence.lif().scalars()
    calls = [
        lambda: torch.ops.tmkt.lif_fwd(x.transpose(1, 2), None, None, 1, *params, False),
        lambda: torch.ops.tmkt.bn_lif_fwd(x, None, x[0, 0].double(), None, None, None, 5, 1, 0, 1e-5, *params, False),
        lambda: torch.ops.tmkt.mixup_fwd(x, x, x, None, None, 1.0, 1.0, torch.float32),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"^(lif|bn_lif|mixup): \w+: expected") as caught:
            call()
        assert not re.search(r"\.(h|cpp|cu|cuh)\b", str(caught.value))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_layers_in_another_dtype(dtype, every_target):
    """.half(), .bfloat16() and .double() work as on torch's batch norm, in training and evaluation."""
    backend, device = every_target
    backend = "auto" if dtype == torch.float64 else backend
    x = (X.to(device) * 1.5).to(dtype)
    for make in (lambda: nn.BatchNormLIF2d(5, backend=backend), lambda: nn.ParametricLIF(channels=5, backend=backend)):
        layer = make().to(device, dtype)
        exact = make().to(device, torch.float64)
        exact.backend = "reference"
        for _ in range(2):
            spikes = layer(x)
            expected = exact(x.double())
            assert spikes.dtype == dtype
            assert torch.equal(spikes.double(), expected)
            for (name, p), q in zip(layer.named_parameters(), exact.parameters(), strict=True):
                gradient = torch.autograd.grad(spikes.sum(), p, retain_graph=True)[0]
                assert gradient.dtype == dtype, name
                assert_gradient_close(gradient, torch.autograd.grad(expected.sum(), q, retain_graph=True)[0], dtype)
            for a, e in zip(layer.buffers(), exact.buffers(), strict=True):
                torch.testing.assert_close(a.double(), e.double(), rtol=1e-2, atol=1e-2)
            layer.eval()
            exact.load_state_dict(layer.state_dict())
            exact.eval()


@pytest.mark.parametrize("surrogate", list(Surrogate), ids=lambda s: s.name.lower())
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradients_of_non_finite_inputs(surrogate, value, every_target):
    """A NaN in the input gives the same gradient as the reference, NaN or not, and affects no other neuron."""
    backend, device = every_target
    base = (torch.randn(3, 1, 37, generator=torch.Generator().manual_seed(0)) * 1.5).to(device)
    base[1, 0, 5] = value
    neuron = {"surrogate": surrogate.name.lower(), "alpha": SURROGATE_SHAPES[surrogate][0], "tau": 1.7}
    results = []
    for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
        x = base.to(dtype).requires_grad_()
        outputs = tk.lif(x, **neuron, return_v=True, backend=name)
        results.append((*(o.double() for o in outputs), torch.autograd.grad(outputs[0].sum(), x)[0].double()))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    "neuron", [{}, {"detach_reset": False}, {"v_reset": None}, {"v_reset": None, "detach_reset": False}]
)
def test_infinite_inputs(neuron, every_target):
    backend, device = every_target
    x = X[:, :, 0, 0].clone().to(device)
    x[1, 0, 0], x[2, 1, 1] = math.inf, -math.inf
    for actual, expected in zip(
        tk.lif(x, **neuron, return_v=True, backend=backend), tk.lif(x.double(), **neuron, return_v=True), strict=True
    ):
        torch.testing.assert_close(actual.double(), expected.double(), rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
@pytest.mark.parametrize("surrogate", [s for s in Surrogate if s != Surrogate.FOURIER], ids=lambda s: s.name.lower())
def test_an_infinite_threshold_never_fires(surrogate, mechanism, every_target):
    """An integrating readout, such as NIR's LI. A Fourier series has no value at infinity."""
    backend, device = every_target
    x = X.to(device).requires_grad_()
    spikes, _, mem = tk.leaky(
        x,
        beta=0.9,
        threshold=math.inf,
        reset_mechanism=mechanism,
        surrogate=surrogate.name.lower(),
        alpha=SURROGATE_SHAPES[surrogate][0],
        return_mem=True,
        backend=backend,
    )
    assert not spikes.any()
    expected = torch.zeros_like(X[0]).to(device)
    for t, step in enumerate(X.to(device)):
        expected = 0.9 * expected + step
        torch.testing.assert_close(mem[t], expected)
    gradient = torch.autograd.grad(mem.sum(), x)[0]
    decays = torch.tensor([sum(0.9**k for k in range(4 - t)) for t in range(4)], device=device)
    torch.testing.assert_close(gradient, decays.view(4, 1, 1, 1, 1).expand_as(x))


def test_statistics_have_no_gradient(every_target):
    backend, device = every_target
    x = X.to(device).requires_grad_()
    *fired, mean, var = tk.bn_lif(x, backend=backend)
    assert all(output.requires_grad for output in fired)
    assert not mean.requires_grad
    assert not var.requires_grad
