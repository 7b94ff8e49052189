"""torch.compile with Python numbers that change from call to call, or are dynamic from the start (dynamic=True)."""

import pytest
import torch
from torch._dynamo.utils import counters

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.testing import assert_gradient_close

X = torch.randn(4, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0)) * 1.5
STEPS = torch.tensor([0, 1, 4])

LAYERS = {
    "LIF": nn.LIF,
    "LIF, learned tau": lambda: nn.LIF(tau=torch.nn.Parameter(torch.tensor(2.0))),
    "IF": nn.IF,
    "ParametricLIF": nn.ParametricLIF,
    "Leaky": lambda: nn.Leaky(0.9),
    "Leaky, learned": lambda: nn.Leaky(0.9, learn_beta=True, learn_threshold=True),
    "BatchNormLIF2d": lambda: nn.BatchNormLIF2d(5).eval(),
    "lif": lambda: lambda x: tk.lif(x)[0],
    "leaky": lambda: lambda x: tk.leaky(x, beta=0.9)[0],
    "bn_lif": lambda: lambda x: tk.bn_lif(x)[0],
    "mixup": lambda: lambda x: tk.time_step_mixup(x[0] * 1.0, x * 1.0, STEPS, scale=(0.5, 1.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_dynamic_from_the_start(name):
    torch._dynamo.reset()
    plain = LAYERS[name]()
    compiled = torch.compile(plain, dynamic=True, fullgraph=True, backend="aot_eager")
    for x in (X, X[:, :, :, :1], torch.cat([X, X])[:7]):
        assert torch.equal(compiled(x), plain(x))


@pytest.mark.parametrize("name", ["lif", "mixup"])
def test_operators_with_their_floats_in_a_tensor(name, target):
    backend, device = target
    suffix = "_triton" if backend == "triton" else ""
    x, numbers = X.to(device).requires_grad_(), torch.tensor([0.5, 0.5, 0.0, 1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    arguments = {
        "lif": (numbers, x, None, None, 1, 0, 0, True, True),
        "mixup": (numbers[:2], x[0], x, STEPS.to(device), None, None, torch.float32),
    }[name]
    torch.library.opcheck(getattr(torch.ops.tmkt, f"{name}_fwd{suffix}_numbers"), arguments)


CHANGING = {
    "tau": lambda x, number, backend: tk.lif(x, tau=1 + number, backend=backend)[0],
    "v_threshold": lambda x, number, backend: tk.lif(x, v_threshold=number, backend=backend)[0],
    "v_reset": lambda x, number, backend: tk.lif(x, v_reset=-number, detach_reset=False, backend=backend)[0],
    "alpha": lambda x, number, backend: tk.lif(x, alpha=number, backend=backend)[0],
    "beta": lambda x, number, backend: tk.leaky(x, beta=number / 2, backend=backend)[0],
    "threshold": lambda x, number, backend: tk.leaky(x, beta=0.9, threshold=number, backend=backend)[0],
    "of bn_lif": lambda x, number, backend: tk.bn_lif(x, tau=1 + number, eps=number, pool=2, backend=backend)[0],
    "scale": lambda x, number, backend: tk.time_step_mixup(
        x[0] * 1.0, x * 1.0, STEPS.to(x.device), scale=(number, 1.0), backend=backend
    ),
    "of a layer": lambda x, number, backend: nn.LIF(tau=1 + number, backend=backend)(x),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("dynamic, compiler", [(None, "aot_eager"), (True, "inductor")])
def test_numbers_that_change_do_not_compile_anew(name, dynamic, compiler, target):
    """An annealed tau, ten values: torch gives up at the ninth graph. Without dynamic=True the first has its own."""
    backend, device = target
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(CHANGING[name], dynamic=dynamic, fullgraph=True, backend=compiler)
    for i in range(10):
        results = []
        for function in (CHANGING[name], compiled):
            x = X.to(device).requires_grad_()
            output = function(x, 0.5 + 0.13 * i, backend)
            results.append((output, torch.autograd.grad(output.square().sum(), x)[0]))
        (expected, gradient), (actual, actual_gradient) = results
        assert torch.equal(actual, expected)
        assert_gradient_close(actual_gradient, gradient, torch.float32)
    assert counters["stats"]["unique_graphs"] == (1 if dynamic else 2)
