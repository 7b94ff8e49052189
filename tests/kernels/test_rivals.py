"""Same spikes and gradients as SpikingJelly 2.0.0 and snnTorch 1.0.0, neuron by neuron, if they are installed
(`pip install tmkt[rivals]`). docs/surrogates.md lists the differences by definition."""

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.testing import assert_gradient_close, assert_spikes_equal

FLIPS = 1e-4
"""Share of spikes that may differ, because the rivals add in another order and the inputs are random."""


def compare(ours, theirs, x, parameters=((), ())):
    """Compare the spikes of two functions x_seq -> spikes, and the gradients at the neurons whose spikes agree."""
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(x.shape, generator=generator)
    results = []
    for run, more in ((ours, parameters[0]), (theirs, parameters[1])):
        leaf = x.clone().requires_grad_()
        spikes = run(leaf)
        results.append((spikes.detach(), *torch.autograd.grad(spikes, (leaf, *more), grad)))
    (spikes, grad_x, *own), (expected, expected_x, *their_own) = results
    assert 0.02 < expected.mean() < 0.9
    assert_spikes_equal(spikes, expected, budget=FLIPS)
    same = (spikes == expected).all(0)
    assert_gradient_close(grad_x * same, expected_x * same, torch.float32)
    for a, b in zip(own, their_own, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-4 if same.all() else 1e-2, atol=1e-5)


def sequence(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1.5


X = sequence(8, 4, 6, 50)


@pytest.fixture(scope="module")
def sj():
    """spikingjelly.activation_based; its neurons need these imports, because they use the modules as attributes."""
    for module in ("neuron", "surrogate"):
        pytest.importorskip(f"spikingjelly.activation_based.{module}", reason="spikingjelly is not installed")
    from spikingjelly import activation_based

    return activation_based


@pytest.fixture(scope="module")
def snn():
    pytest.importorskip("snntorch.surrogate", reason="snntorch is not installed")
    import snntorch

    return snntorch


class TestSpikingJelly:
    @staticmethod
    def multi_step(node):
        node.step_mode = "m"

        def run(x):
            node.reset()
            return node(x)

        return run

    @pytest.mark.parametrize("detach_reset", [True, False])
    @pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
    @pytest.mark.parametrize("decay_input", [True, False])
    @pytest.mark.parametrize("tau", [2.0, 1.7])
    def test_lif(self, sj, tau, decay_input, v_reset, detach_reset):
        shared = {"tau": tau, "decay_input": decay_input, "v_reset": v_reset, "detach_reset": detach_reset}
        node = sj.neuron.LIFNode(**shared, surrogate_function=sj.surrogate.ATan())
        compare(nn.LIF(**shared), self.multi_step(node), X)

    @pytest.mark.parametrize("v_reset", [0.0, None])
    def test_if(self, sj, v_reset):
        node = sj.neuron.IFNode(v_reset=v_reset, surrogate_function=sj.surrogate.ATan(), detach_reset=True)
        compare(nn.IF(v_reset=v_reset), self.multi_step(node), X)

    @pytest.mark.parametrize("decay_input", [True, False])
    @pytest.mark.parametrize("v_reset", [0.0, None])
    def test_parametric_lif(self, sj, v_reset, decay_input):
        shared = {"init_tau": 1.7, "decay_input": decay_input, "v_reset": v_reset, "detach_reset": True}
        ours = nn.ParametricLIF(**shared)
        theirs = sj.neuron.ParametricLIFNode(**shared, surrogate_function=sj.surrogate.ATan())
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        compare(ours, self.multi_step(theirs), X, ((ours.w,), (theirs.w,)))

    @pytest.mark.parametrize(
        ("name", "alpha", "theirs", "shape"),
        [
            ("atan", 2.0, "ATan", {"alpha": 2.0}),
            ("sigmoid", 4.0, "Sigmoid", {"alpha": 4.0}),
            ("triangle", 1.0, "PiecewiseQuadratic", {"alpha": 1.0}),
            ("rectangle", 1.3, "Rect", {"alpha": 1.3}),
            ("exponential", 1.0, "PiecewiseExp", {"alpha": 1.0}),
            ("soft_sign", 2.0, "SoftSign", {"alpha": 2.0}),
            ("super_spike", 1.3, "SuperSpike", {"alpha": 1.3}),
            ("erf", 2.0, "Erf", {"alpha": 2.0}),
            ("log", 1.0, "NonzeroSignLogAbs", {"alpha": 1.0}),
            ("leaky_rectangle", (0.5, 0.01), "PiecewiseLeakyReLU", {"w": 1.0, "c": 0.01}),
            ("fourier", (0.125, 1), "SquarewaveFourierSeries", {"n": 2, "T_period": 8}),
            ("s2nn", (4.0, 1.0), "S2NN", {"alpha": 4.0, "beta": 1.0}),
            ("q_pseudo_spike", 2.0, "QPseudoSpike", {"alpha": 2.0}),
            ("leaky_relu", (1.0, 0.1), "LeakyKReLU", {"leak": 0.1, "k": 1.0}),
            ("inverse", 0.3, "FakeNumericalGradient", {"alpha": 0.3}),
            ("log_tailed_relu", 0.0, "LogTailedReLU", {"alpha": 0.0}),
            ("straight_through", 1.0, "DeterministicPass", {}),
        ],
    )
    def test_surrogate(self, sj, name, alpha, theirs, shape):
        node = sj.neuron.LIFNode(surrogate_function=getattr(sj.surrogate, theirs)(**shape), detach_reset=True)
        compare(nn.LIF(surrogate=name, alpha=alpha), self.multi_step(node), X)


class TestSnnTorch:
    @staticmethod
    def loop(cell):
        def run(x):
            mem, spikes = cell.reset_mem(), []
            for step in x:
                spike, mem = cell(step, mem)
                spikes.append(spike)
            return torch.stack(spikes)

        return run

    @pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
    @pytest.mark.parametrize("threshold", [1.0, 0.7])
    def test_leaky(self, snn, mechanism, threshold):
        shared = {"beta": 0.9, "threshold": threshold, "reset_mechanism": mechanism}
        compare(nn.Leaky(**shared), self.loop(snn.Leaky(**shared)), X)

    @pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
    def test_learned(self, snn, mechanism):
        shared = {"beta": 0.8, "threshold": 0.9, "reset_mechanism": mechanism}
        shared |= {"learn_beta": True, "learn_threshold": True}
        ours, theirs = nn.Leaky(**shared), snn.Leaky(**shared)
        assert set(ours.state_dict()) < set(theirs.state_dict())
        compare(ours, self.loop(theirs), X, ((ours.beta, ours.threshold), (theirs.beta, theirs.threshold)))

    def test_fires_above_the_threshold_only(self, snn):
        x = torch.tensor([[[1.0]], [[0.0]], [[1.5]]])
        expected = self.loop(snn.Leaky(beta=0.5))(x)
        assert expected.flatten().tolist() == [0.0, 0.0, 1.0]
        assert torch.equal(tk.leaky(x, beta=0.5)[0], expected)

    @pytest.mark.parametrize(
        ("name", "alpha", "theirs", "shape"),
        [
            ("atan", 2.0, "atan", {"alpha": 2.0}),
            ("sigmoid", 5.0, "sigmoid", {"slope": 5}),
            ("fast_sigmoid", 25.0, "fast_sigmoid", {"slope": 25}),
            ("straight_through", 1.0, "straight_through_estimator", {}),
            ("tent", 1.0, "triangular", {"threshold": 1}),
            ("leaky_relu", (1.0, 0.0), "heaviside", {}),
            ("spike_rate_escape", (25.0, 1.0), "spike_rate_escape", {"beta": 1, "slope": 25}),
            ("sparse_fast_sigmoid", (25.0, -0.5), "SFS", {"slope": 25, "B": -0.5}),
        ],
    )
    def test_surrogate(self, snn, name, alpha, theirs, shape):
        cell = snn.Leaky(beta=0.5, spike_grad=getattr(snn.surrogate, theirs)(**shape))
        compare(nn.Leaky(beta=0.5, surrogate=name, alpha=alpha), self.loop(cell), X)


def test_the_comparison_can_fail():
    with pytest.raises(AssertionError, match="flipped"):
        compare(nn.LIF(tau=2.0), nn.LIF(tau=2.1), X)
    with pytest.raises(AssertionError, match="relative L2 error"):
        compare(nn.LIF(alpha=2.0), nn.LIF(alpha=2.1), X)
