"""tmkt_kernels.bn_lif: every backend against the reference, the reference against torch."""

import copy

import pytest
import torch
from batch_norm_inputs import inputs_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.testing import (
    BN_FLIP_BUDGET,
    BN_LIF_CASES,
    GRADIENT_TOLERANCE,
    assert_gradient_close,
    assert_spikes_equal,
    bn_lif_inputs,
    bn_lif_run,
    bn_lif_truth,
    without_flips,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
SHAPES = {
    "planes": (5, 3, 6, 9, 8),
    "lines": (5, 3, 6, 16, 22),  # planes of whole cache lines, in tiles of every width
    "streamed": (6, 8, 64, 16, 22),  # outputs large enough to be written past the caches
    "short-planes": (5, 3, 6, 3, 2),
    "features": (5, 4, 37),
    "sequence": (4, 3, 5, 33),
    "one-step": (1, 6, 5, 4, 4),
    "many-channels": (3, 2, 600),
    "one-channel": (5, 7, 1, 7, 9),
    "odd-features": (17, 9, 37),  # neither a sample nor a channel is a multiple of any vector width
    "smallest-planes": (17, 9, 40, 3, 3),
    "even-planes": (40, 2, 10, 6, 6),
    "odd-planes": (4, 5, 12, 7, 7),
    "channels-in-shared-memory": (10, 3, 20, 12, 12),
    "longest-in-shared-memory": (16, 5, 33, 8, 8),
}


def run(inputs, neuron, backend, training=True, x=None, statistics=None, return_v=True):
    """Return outputs, and gradients of x, weight, bias and v_init; `statistics` (mean, var) are constants if given."""
    x = inputs["x"] if x is None else x
    leaves = [t.detach().clone().requires_grad_() for t in (x, inputs["weight"], inputs["bias"], inputs["v_init"])]
    ones = torch.ones_like(inputs["weight"])
    given_statistics = {} if training else {"mean": 0.3 * ones, "var": 2 * ones}
    if statistics is not None:
        given_statistics = dict(zip(("mean", "var"), statistics, strict=True))
    outputs = tk.bn_lif(*leaves, **neuron, **given_statistics, return_v=return_v, backend=backend)
    used = outputs[:-2]  # all but the statistics
    grads = [g.to(o.dtype) for g, o in zip(inputs["grads"], used, strict=return_v)]
    return tuple(o.detach() for o in outputs), torch.autograd.grad(used, leaves, grads)


def check(inputs, neuron, backend, training, return_v=True):
    outputs, grads = run(inputs, neuron, backend, training, return_v=return_v)
    expected, _ = run(inputs, neuron, "reference", training, return_v=return_v)
    dtype = inputs["x"].dtype
    assert_spikes_equal(outputs[0], expected[0], BN_FLIP_BUDGET)
    for a, e in zip(outputs, expected, strict=True):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
    torch.testing.assert_close(outputs[-2:], expected[-2:], rtol=1e-5, atol=1e-6)
    exact, true_grads = run({**inputs, "x": inputs["x"].double()}, neuron, "reference", training, return_v=return_v)
    assert torch.equal(outputs[0].double(), exact[0]), "rounding has flipped a spike: take another seed for this shape"
    for a, e in zip(grads, true_grads, strict=True):
        assert_gradient_close(a, e, dtype)


@pytest.mark.parametrize("case", BN_LIF_CASES, ids=lambda case: case.name)
@dtypes
def test_each_case(case, dtype, every_target):
    """Spikes and potentials equal the reference's, and gradients those of the reference in float64."""
    backend, device = every_target
    inputs = bn_lif_inputs(case, dtype, device)
    expected, _ = bn_lif_run(case, inputs, "reference")
    same = expected[0] == bn_lif_truth(case, inputs)[0][0]
    assert bool(same.all()), "rounding has flipped a spike of the reference: take another shape for this case"
    outputs, grads = bn_lif_run(case, inputs, backend)
    assert torch.equal(outputs[0], expected[0])
    for actual, reference in zip(outputs, expected, strict=True):
        assert actual.dtype == reference.dtype
        torch.testing.assert_close(actual, reference, rtol=1e-5 if actual.dtype == torch.float32 else 1e-2, atol=1e-5)
    for grad, exact in zip(grads, bn_lif_truth(case, inputs)[1], strict=True):
        assert_gradient_close(grad, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("shape", [(4, 2, 3, 9, 8), (4, 2, 3, 16, 6), (4, 2, 3, 2, 2), (4, 8, 5)], ids=str)
@pytest.mark.parametrize("pool", [1, 2])
def test_the_current_gradient_is_never_stored_in_a_half_type(shape, pool, dtype, every_target):
    """As under GradScaler's 65536: the gradient of x fits float16, but that of the current, larger by x's spread, does
    not. Its mean is a thousand times its deviations, so that rounding it to bfloat16 would lose them."""
    backend, device = every_target
    pool = pool if len(shape) == 5 else 1
    generator = torch.Generator().manual_seed(0)
    x = (1000 * torch.randn(shape, generator=generator)).to(device, dtype)
    upstream = (2e5 + 200 * torch.randn(shape[1:], generator=generator)).to(device)
    results = []
    for name, as_dtype in ((backend, dtype), ("reference", torch.float64)):
        leaf = x.to(as_dtype).requires_grad_()
        outputs = tk.bn_lif(leaf, tau=float("inf"), v_threshold=100.0, pool=pool, backend=name)
        loss = (outputs[1] * upstream).sum() + outputs[0].sum()
        results.append(torch.autograd.grad(loss, leaf)[0])
    assert 0 < results[1].abs().max() < 10
    assert_gradient_close(*results, dtype)


# (training, return_v): without v_seq CUDA may keep a channel in shared memory.
@pytest.mark.parametrize("mode", [(True, True), (True, False), (False, True)], ids=["training", "alone", "eval"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@dtypes
def test_each_shape(shape, dtype, mode, target):
    backend, device = target
    check(inputs_of(shape, dtype, device), {}, backend, *mode)


@settings(max_examples=40, deadline=None)
@given(
    T=st.integers(1, 12),
    batch=st.integers(1, 4),
    channels=st.integers(1, 40),
    inner=st.integers(1, 90),
    training=st.booleans(),
    tau=st.floats(1, 9),
)
def test_any_size(T, batch, channels, inner, training, tau):
    """With few values, the statistics' gradient cancels nearly all the rest; errors are relative to the rest."""
    assume(not training or T * batch * inner >= 8)
    inputs, neuron = inputs_of((T, batch, channels, inner), torch.float32), {"tau": tau}
    outputs, _ = run(inputs, neuron, "native", training)
    exact, _ = run({**inputs, "x": inputs["x"].double()}, neuron, "reference", training)
    assert set(outputs[0].unique().tolist()) <= {0.0, 1.0}
    alike = (outputs[0] == exact[0]).all(0)
    assert int((~alike).sum()) <= 1  # of up to 1.7e5 spikes; after a flip, the rest of a neuron's spikes differ
    inputs = without_flips(inputs, alike)
    exact_inputs = {**inputs, "x": inputs["x"].double()}
    _, grads = run(inputs, neuron, "native", training)
    _, true_grads = run(exact_inputs, neuron, "reference", training)
    held = [s.float() for s in exact[3:5]] if training else None
    _, held_grads = run(exact_inputs, neuron, "reference", training, statistics=held)
    for a, e, h in zip(grads, true_grads, held_grads, strict=True):
        error = float((a.double() - e.double()).norm())
        of_terms = true_grads[0].norm()  # the gradients of weight and bias are sums of such terms, which may cancel too
        assert error <= GRADIENT_TOLERANCE[torch.float32] * float(max(e.norm(), h.norm(), of_terms))


def test_reference_is_batch_norm_then_lif():
    inputs = inputs_of((6, 4, 5, 7, 7), torch.float64)
    x = inputs["x"].requires_grad_()
    norm = torch.nn.BatchNorm2d(5).double()
    with torch.no_grad():
        norm.weight.copy_(inputs["weight"])
        norm.bias.copy_(inputs["bias"])
    expected = tk.lif(norm(x.flatten(0, 1)).view_as(x), tau=1.7, backend="reference")[0]
    weight, bias = inputs["weight"].double(), inputs["bias"].double()
    spikes = tk.bn_lif(x, weight, bias, tau=1.7, backend="reference")[0]
    assert_spikes_equal(spikes, expected)
    grads = [torch.autograd.grad(s, x, inputs["grads"][0].double())[0] for s in (spikes, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.slow
def test_flip_budget():
    """The share of 2e7 spikes of random inputs that differ from exact arithmetic. Measured: see BN_FLIP_BUDGET."""
    flips = total = 0
    for seed in range(4):
        x = inputs_of((10, 8, 64, 32, 32), torch.float32, seed=seed)["x"]
        spikes = tk.bn_lif(x, backend="native")[0]
        exact = tk.bn_lif(x.double(), backend="reference")[0]
        flips, total = flips + int((spikes != exact).sum()), total + x.numel()
    print(f"{flips} of {total} spikes flipped: {flips / total:.1e}")
    assert flips / total < BN_FLIP_BUDGET


@pytest.mark.parametrize("outlier", [False, True], ids=["", "outlier"])
@pytest.mark.parametrize(
    "shape",
    [(8, 4, 6, 20, 20), (8, 16, 50), (5, 9, 40, 3, 3), (40, 8, 6, 7, 7)],
    ids=["planes", "neurons", "smallest-planes", "odd-planes"],
)
def test_statistics_far_from_zero(shape, outlier, every_target):
    """Statistics stay exact far from zero, even if a channel's first value, a possible pivot, is far off."""
    backend, device = every_target
    x = torch.randn(shape, device=device) + 1e4
    if outlier:
        x[0, 0].view(shape[2], -1)[:, 0] = 0
    mean, var = tk.bn_lif(x, backend=backend)[2:]
    dims = [d for d in range(len(shape)) if d != 2]
    true_var, true_mean = torch.var_mean(x.double(), dim=dims, correction=0)
    torch.testing.assert_close(mean.double(), true_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), true_var, rtol=1e-4, atol=0)


def test_layouts_are_kept(target):
    backend, device = target
    inputs = inputs_of((4, 3, 16, 6, 5), torch.float32, device)
    plain, grads = run(inputs, {}, backend)
    last = inputs["x"].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    outputs, other = run(inputs, {}, backend, x=last)
    assert_spikes_equal(outputs[0], plain[0], BN_FLIP_BUDGET)
    assert tk.bn_lif(last, backend=backend)[0].stride() == last.stride()
    for a, e in zip(other, grads, strict=True):
        assert_gradient_close(a, e, torch.float32)


def test_backward_keeps_nothing_but_x_of_its_size():
    kept = []
    x = torch.randn(6, 4, 8, 10, 10, requires_grad=True)
    layer = nn.BatchNormLIF2d(8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x * 1.0)
    assert sorted(t.numel() for t in kept) == [8, 8, 8, 8, x.numel()]  # mean, var, weight, bias, and x


def test_same_bits_every_run_and_thread_count(target):
    backend, device = target
    inputs = inputs_of((6, 8, 32, 16, 16), torch.float32, device)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            outputs, grads = run(inputs, {}, backend)
            results.append((*outputs, *grads))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_opcheck(training, kernel_target):
    backend, device = kernel_target
    suffix = "_triton" if backend == "triton" else ""
    inputs = inputs_of((3, 2, 4, 5), torch.float32, device)
    x, weight, bias, v_init = (inputs[n].requires_grad_() for n in ("x", "weight", "bias", "v_init"))
    ones = torch.ones(4, device=device)
    statistics = (None, None) if training else (ones * 0, ones)
    sizes = (4, 5, 0, 1e-5, *Recurrence.lif().scalars())
    fwd, bwd = (getattr(torch.ops.tmkt, f"bn_lif_{direction}{suffix}") for direction in ("fwd", "bwd"))
    torch.library.opcheck(fwd, (x, v_init, weight, bias, *statistics, *sizes, True))
    plain = [t.detach() for t in (x, v_init, weight, bias)]
    torch.library.opcheck(bwd, (*inputs["grads"], *plain, ones * 0, ones, training, *sizes))


@pytest.mark.slow
def test_compiles_into_one_graph(target):
    backend, device = target
    torch._dynamo.reset()
    layer = nn.BatchNormLIF2d(4, backend=backend).to(device)
    other = copy.deepcopy(layer)
    compiled = torch.compile(other, fullgraph=True)
    x = torch.randn(3, 2, 4, 5, 5, device=device)
    for _ in range(2):
        assert torch.equal(layer(x), compiled(x))
    # torch.compile contracts the running average to an FMA on a GPU.
    torch.testing.assert_close(layer.running_var, other.running_var, rtol=1e-6, atol=0)


X = torch.zeros(4, 2, 3, 5)
ERRORS = {
    "dims": (ValueError, r"expected \[T, B, C, ...\]", lambda: tk.bn_lif(torch.zeros(4, 2))),
    "one statistic": (ValueError, "expected both", lambda: tk.bn_lif(X, mean=torch.zeros(3))),
    "weight shape": (ValueError, r"weight: expected \[3\].*\(5,\)", lambda: tk.bn_lif(X, torch.zeros(5))),
    "weight dtype": (
        TypeError,
        "weight: expected torch.float32 or narrower",
        lambda: tk.bn_lif(X, torch.zeros(3).double()),
    ),
    "one value": (ValueError, "more than 1 value per channel", lambda: tk.bn_lif(torch.zeros(1, 1, 3))),
    "tensor tau": (TypeError, "tau: expected a float", lambda: tk.bn_lif(X, tau=torch.ones(3))),
    "layer dims": (ValueError, r"x_seq: expected \[T, B, 4, ...\] with 5", lambda: nn.BatchNormLIF2d(4)(X)),
    "backend": (ValueError, "backend: expected 'auto'", lambda: tk.bn_lif(X, backend="cuda")),
    "pool": (ValueError, "pool: expected 1, or 2 with x_seq", lambda: tk.bn_lif(X, pool=2)),
    "pool size": (
        ValueError,
        "pool: expected 1, or 2 with x_seq",
        lambda: tk.bn_lif(torch.zeros(4, 2, 3, 5, 5), pool=3),
    ),
    "function": (RuntimeError, "surrogate is a function", lambda: tk.bn_lif(X, surrogate=lambda u, a: u)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_named(name):
    error, message, call = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("shape", [(3, 0, 4, 5), (3, 2, 4, 0), (3, 2, 0, 4)])
def test_empty(shape, training, every_target):
    backend, device = every_target
    x = torch.zeros(shape, device=device, requires_grad=True)
    zeros, ones = (torch.full((shape[2],), v, device=device, requires_grad=True) for v in (0.0, 1.0))
    given = {} if training else {"mean": zeros.detach(), "var": ones.detach()}
    for by in (backend, "reference"):
        spikes, _, *statistics = tk.bn_lif(x, ones, zeros, **given, backend=by)
        assert spikes.shape == shape
        assert [s.tolist() for s in statistics] == ([zeros.tolist()] * 2 if training else [[], []])
        grads = torch.autograd.grad(spikes.sum(), (x, ones, zeros))
        assert grads[0].shape == shape
        assert not grads[1].any()
        assert not grads[2].any()
