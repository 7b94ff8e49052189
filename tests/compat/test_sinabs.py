"""accelerate on sinabs: layers that fire at most once per step, [B, T, ...] and squeezed."""

import pytest
import torch
from torch import nn

import tmkt_kernels as tk

pytest.importorskip("sinabs.layers", reason="sinabs is not installed")
import sinabs.activation as sa
import sinabs.layers as sl

ONE_SPIKE = {"spike_fn": sa.SingleSpike, "surrogate_grad_fn": sa.SingleExponential(grad_scale=0.5)}
X = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0)) * 2
LAYERS = {
    "lif": lambda: sl.LIF(tau_mem=3.0, **ONE_SPIKE),
    "lif, alpha learned, hard reset": lambda: sl.LIF(
        tau_mem=3.0, norm_input=False, reset_fn=sa.MembraneReset(), train_alphas=True, **ONE_SPIKE
    ),
    "iaf": lambda: sl.IAF(**ONE_SPIKE),
    "iaf, gaussian": lambda: sl.IAF(spike_fn=sa.SingleSpike, surrogate_grad_fn=sa.Gaussian()),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layer(same_spikes, kind):
    same_spikes(LAYERS[kind](), lambda layer, x: layer(x), X)


@pytest.mark.parametrize("kind", LAYERS)
def test_half(same_half, kind):
    """The spikes and state of sinabs are float32, and make its sums float32."""
    same_half(LAYERS[kind](), lambda layer, x: layer(x), X, rounds=False)


def test_a_layer_made_half_has_sinabs_dtypes(half):
    layers = [LAYERS["lif"]() for _ in "ab"]
    tk.accelerate(layers[1])
    results = []
    for layer in layers:
        first = layer(X.to(half))
        layer.to(half)  # its state too
        results.append([first, layer(X.to(half)), layer.v_mem, layer.firing_rate])
    theirs, ours = results
    assert [t.dtype for t in ours] == [t.dtype for t in theirs] == [torch.float32] * 4


def test_squeezed(same_spikes):
    same_spikes(sl.IAFSqueeze(batch_size=4, **ONE_SPIKE), lambda layer, x: layer(x), X.flatten(0, 1), budget=0.0)
    same_spikes(sl.LIFSqueeze(batch_size=4, tau_mem=3.0, **ONE_SPIKE), lambda layer, x: layer(x), X.flatten(0, 1))


def test_network(compare_training):
    net = nn.Sequential(nn.Linear(6, 16), LAYERS["lif"](), nn.Linear(16, 4), LAYERS["iaf"]())

    def run(net, x):
        for layer in (net[1], net[3]):
            layer.reset_states()
        return net(x.transpose(0, 1)).transpose(0, 1)

    compare_training(net, run, X.transpose(0, 1), fused=0)


def test_state_goes_on_and_comes_back():
    layers = [LAYERS["lif"]() for _ in "ab"]
    tk.accelerate(layers[1])
    for layer in layers:
        layer(X), layer(X)
    torch.testing.assert_close(layers[0].v_mem, layers[1].v_mem)
    assert layers[0].firing_rate == layers[1].firing_rate
    assert type(tk.restore(layers[1])) is sl.LIF


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (sl.IAF(), "more than once"),
        (sl.IAF(spike_fn=sa.SingleSpike), "surrogate"),
        (sl.LIF(tau_mem=3.0, tau_syn=2.0, **ONE_SPIKE), "tau_syn"),
        (sl.LIF(tau_mem=3.0, min_v_mem=-1.0, **ONE_SPIKE), "min_v_mem"),
        (sl.IAF(reset_fn=sa.MembraneReset(0.5), **ONE_SPIKE), "reset"),
        (sl.ExpLeak(tau_mem=3.0), "ExpLeak has no equal"),
    ],
)
def test_left_alone(layer, why):
    report = tk.accelerate(layer)
    assert not report.replaced
    assert why in report.left[""]
