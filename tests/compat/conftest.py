"""Helpers that the tests of several libraries share."""

import copy

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels.ops.bn_lif import functional
from tmkt_kernels.testing import GRADIENT_TOLERANCE, assert_spikes_equal, relative_error


@pytest.fixture
def fused_calls(monkeypatch):
    """A list that receives the shape of x_seq for each batch norm and neuron that run as one operator."""
    calls, choose_backend = [], functional.choose_backend

    def count(operator, x_seq, *args):
        calls.append(tuple(x_seq.shape))
        return choose_backend(operator, x_seq, *args)

    monkeypatch.setattr(functional, "choose_backend", count)
    return calls


def assert_named_close(expected, actual, **tolerances):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, **tolerances, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture
def compare_training():
    """Train a model and its accelerated copy in the same way; losses, gradients, buffers and checkpoints agree."""

    def compare(model, run, x, fused, steps=50, lr=0.05, half="ours"):
        ours = copy.deepcopy(model)
        report = tk.accelerate(ours, half=half)
        assert report.replaced, report
        assert len(report.fused) == fused, report
        assert list(ours.state_dict()) == list(model.state_dict())
        curves = []
        gradients, states = [], []  # of the first step, after the second
        for net in (model, ours):
            optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
            target = torch.randint(0, 4, (x.shape[1],), generator=torch.Generator().manual_seed(2))
            losses = []
            for step in range(steps):
                loss = torch.nn.functional.cross_entropy(run(net, x).float().mean(0).flatten(1)[:, :4], target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if step == 0:
                    gradients.append({n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None})
                if step == 1:
                    states.append(copy.deepcopy(net.state_dict()))
            curves.append(torch.tensor(losses))
        theirs, own = curves
        torch.testing.assert_close(own[:10], theirs[:10], rtol=1e-3, atol=1e-3)
        # A flipped spike grows in training like any change of 1e-7, so that later losses agree only roughly.
        assert (own - theirs).abs().mean() < 0.02
        assert steps < 10 or theirs[-1] < theirs[0], "nothing was learned: the comparison would not see a gradient"
        assert_named_close(*gradients, rtol=1e-2, atol=1e-5)
        assert_named_close(*states, rtol=1e-2, atol=1e-3)
        model.eval(), ours.eval()
        for source, target in ((model, ours), (ours, model)):  # checkpoints work in both directions
            target.load_state_dict(source.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(run(ours, x), run(model, x), rtol=1e-4, atol=1e-4)
        return report

    return compare


@pytest.fixture
def same_spikes():
    """Spikes of a module and its accelerated copy differ within the budget, gradients within their tolerance."""

    def same(module, run, x, budget=1e-4):
        ours = copy.deepcopy(module)
        report = tk.accelerate(ours)
        assert report.replaced, report
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        expected, spikes = (run(net, leaf) for net, leaf in zip((module, ours), leaves, strict=True))
        assert 0.01 < expected.mean() < 0.95
        assert_spikes_equal(spikes, expected, budget)
        # Only neurons without a flip. A parameter's gradient is a sum that cancels, added in float32 in two orders.
        alike = (spikes == expected).all(0)
        grad = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)) * alike
        theirs = gradients(module, leaves[0], expected, grad)
        own = gradients(ours, leaves[1], spikes, grad)
        for a, b in zip(own, theirs, strict=True):
            assert relative_error(a, b) < (1e-5 if b.numel() > 1 else 1e-4)
        return ours

    def gradients(net, leaf, spikes, grad):
        return torch.autograd.grad(spikes, [leaf, *(p for p in net.parameters() if p.requires_grad)], grad)

    return same


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def half(request):
    return request.param


@pytest.fixture
def same_half(half):
    """On half inputs, spikes and gradients equal the library's in float32, in the dtype that the library returns.

    `rounds`: the library's own half arithmetic flips some of these spikes, so that the comparison would notice if the
    library had computed them.
    """

    def same(module, run, x, rounds):
        theirs, wide, ours = (copy.deepcopy(module) for _ in range(3))
        assert "more exact" in str(tk.accelerate(ours))
        own = run(theirs, x.to(half)).detach()
        results = []
        for net, dtype in ((wide, torch.float32), (ours, half)):
            leaf = x.to(half).to(dtype).requires_grad_()
            spikes = run(net, leaf)
            grad = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(half).to(spikes.dtype)
            wanted = [leaf, *(p for p in net.parameters() if p.requires_grad)]
            results.append((spikes.detach(), torch.autograd.grad(spikes, wanted, grad)))
        (expected, expected_grads), (spikes, grads) = results
        assert 0.01 < expected.mean() < 0.95
        assert spikes.dtype is own.dtype
        assert torch.equal(spikes.float(), expected)
        assert torch.equal(own.float(), expected) is not rounds
        for a, b in zip(grads, expected_grads, strict=True):
            assert relative_error(a, b) < GRADIENT_TOLERANCE[half]

    return same
