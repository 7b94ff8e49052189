"""tmkt_kernels.nn: layers."""

import copy
import math
import pickle

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import nn


def test_lif_is_the_functional_form():
    x = torch.randn(5, 3, 4, 6, 6) * 2
    neuron = {"tau": 1.7, "v_reset": None, "surrogate": "triangle", "detach_reset": False, "v_threshold": 0.5}
    layer = nn.LIF(**neuron, return_v=True)
    for actual, expected in zip(layer(x), tk.lif(x, **neuron, return_v=True)[::2], strict=True):
        assert torch.equal(actual, expected)
    assert torch.equal(nn.LIF(**neuron)(x), layer(x)[0])


def test_if_has_an_infinite_time_constant():
    x = torch.randn(5, 3, 8)
    assert torch.equal(nn.IF(v_reset=None)(x), tk.lif(x, tau=math.inf, v_reset=None)[0])
    assert torch.equal(nn.IF()(x), tk.lif(x, tau=math.inf, decay_input=False)[0])


def test_per_step_applies_its_layers_to_each_step_alone():
    layers = nn.PerStep(torch.nn.Conv2d(2, 3, 3), torch.nn.AvgPool2d(2))
    x_seq = torch.rand(5, 4, 2, 8, 8)
    torch.testing.assert_close(layers(x_seq), torch.stack([layers[1](layers[0](x)) for x in x_seq]))
    with pytest.raises(ValueError, match=r"x_seq: expected \[T, B, \.\.\.\], got \[5\]"):
        layers(x_seq[:, 0, 0, 0, 0])


def test_starts_at_rest():
    x = torch.zeros(1, 1, 1)
    assert tk.lif(x, v_reset=0.25, return_v=True)[2].item() == 0.25


def test_stateful_layer_continues_where_it_stopped():
    x = torch.randn(8, 3, 50) * 2
    whole = nn.LIF(tau=3.0)(x)
    layer = nn.LIF(tau=3.0, stateful=True)
    assert torch.equal(torch.cat([layer(x[:3]), layer(x[3:])]), whole)
    layer.reset()
    assert torch.equal(layer(x), whole)
    stateless = nn.LIF(tau=3.0)
    assert torch.equal(stateless(x), stateless(x))


def test_state_stays_out_of_graph_and_checkpoint():
    layer = nn.LIF(stateful=True)
    x = torch.randn(3, 2, 4, requires_grad=True)
    layer(x).sum().backward()
    layer(x).sum().backward()  # would fail if v still referred to the first graph
    assert layer.state_dict() == {}


def test_changed_batch_is_a_clear_error():
    layer = nn.LIF(stateful=True)
    layer(torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match=r"holds v for a batch of shape \(2, 4\) on cpu, got \(3, 4\).*reset"):
        layer(torch.zeros(3, 3, 4))


def test_copies_and_pickles():
    layer = nn.LIF(tau=1.5, v_reset=None, stateful=True)
    x = torch.randn(4, 2, 7) * 2
    layer(x)
    expected = copy.deepcopy(layer)(x)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)


def test_repr_names_the_parameters():
    assert repr(nn.LIF(tau=1.5)).startswith("LIF(tau=1.5, decay_input=True, v_threshold=1.0, v_reset=0.0,")
    assert "scale=(0.5, 1.0)" in repr(nn.TimeStepMixup(scale=(0.5, 1.0)))


def test_bad_parameters_fail_when_the_layer_is_made():
    with pytest.raises(ValueError, match="tau"):
        nn.LIF(tau=0.1)
    with pytest.raises(ValueError, match="surrogate"):
        nn.IF(surrogate="step")


def test_trains():
    """A tiny network learns XOR of two rates, so that gradients must flow through layers, time and reset."""
    torch.manual_seed(1)
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([0, 1, 1, 0])
    net = torch.nn.Sequential(torch.nn.Linear(2, 32), nn.LIF(surrogate="sigmoid", alpha=4.0), torch.nn.Linear(32, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(200):
        loss = torch.nn.functional.cross_entropy(net(x.expand(6, 4, 2)).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
