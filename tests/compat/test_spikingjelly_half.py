"""Half types on SpikingJelly: our operators compute in float32, or leave the call to the library."""

import copy

import pytest
import torch
from torch import nn

import tmkt_kernels as tk
from tmkt_kernels.testing import GRADIENT_TOLERANCE, assert_spikes_equal, relative_error

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly_nets import IMAGES, MANY, NODES, X, csnn, sequence, steps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_computed_by_spikingjelly(dtype):
    node = neuron.LIFNode(tau=1.7, step_mode="m")
    expected = sequence(node, MANY.to(dtype))
    v = node.v
    assert "left to the library" in str(tk.accelerate(node, half="library"))
    actual = sequence(node, MANY.to(dtype))
    assert actual.dtype is dtype
    assert torch.equal(actual, expected)
    assert torch.equal(node.v, v)


def test_autocast_left_to_spikingjelly(compare_training):
    def run(net, x):
        with torch.autocast("cpu", torch.bfloat16):
            return sequence(net, x)

    compare_training(csnn(), run, IMAGES, fused=2, steps=3, half="library")


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
@pytest.mark.parametrize("kind", NODES)
def test_half(same_half, kind, v_reset, step_mode):
    node = NODES[kind](v_reset=v_reset, step_mode=step_mode)
    same_half(node, sequence if step_mode == "m" else steps, MANY, rounds=True)


@pytest.mark.parametrize("without_gradient", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_state_goes_on_between_half_and_float(half, step_mode, without_gradient):
    """v is float32 and unrounded: over calls in half, and then in float32, spikes equal SpikingJelly's in float32.
    v_seq has the dtype of the input, as SpikingJelly's; reset and restore find a state that they know."""
    nodes = [neuron.IFNode(v_reset=None, step_mode=step_mode, store_v_seq=True) for _ in "ab"]
    tk.accelerate(nodes[1])
    parts = [MANY[:2].to(half), MANY[2:4].to(half), MANY[4:] / 3]
    for x in parts:
        with without_gradient():
            expected, spikes = (
                node(i) if step_mode == "m" else torch.stack([node(step) for step in i])
                for node, i in zip(nodes, (x.float(), x), strict=True)
            )
        assert spikes.dtype is nodes[1].v_seq.dtype is x.dtype
        assert torch.equal(spikes.float(), expected)
        assert nodes[1].v.dtype is torch.float32
        assert torch.equal(nodes[1].v, nodes[0].v)
    tk.restore(nodes[1])
    with without_gradient():
        assert torch.equal(nodes[1](parts[2]), nodes[0](parts[2]))
    functional.reset_net(nodes[1])
    assert nodes[1].v == 0.0


def test_v_begins_unrounded_in_half(half):
    """The user's v, and v_reset for a new batch size."""
    nodes = [neuron.IFNode(v_reset=0.2, step_mode="m") for _ in "ab"]
    tk.accelerate(nodes[1])
    for node in nodes:
        node.v = 0.3
    for x in (MANY[:1], MANY[1:2, :3]):
        expected, spikes = nodes[0](x.to(half).float()), nodes[1](x.to(half))
        assert torch.equal(spikes.float(), expected)
        assert torch.equal(nodes[1].v, nodes[0].v)


def test_v_is_differentiable_in_half(half):
    """The gradient goes through v from a call in half to one in float32."""
    grads = []
    nodes = [neuron.IFNode(step_mode="m") for _ in "ab"]
    tk.accelerate(nodes[1])
    for node, dtype in zip(nodes, (torch.float32, half), strict=True):
        x = X.to(half).to(dtype).requires_grad_()
        node(x)
        (node(X).sum() + node.v.sum()).backward()
        grads.append(x.grad)
    assert grads[1].dtype is half
    assert relative_error(grads[1], grads[0]) < GRADIENT_TOLERANCE[half]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_half_batch_norm_and_neuron(half, training, autocast):
    """The pair runs as one operator: half in, half out, parameters and running statistics in float32."""
    net = nn.Sequential(layer.BatchNorm1d(5, step_mode="m"), neuron.LIFNode(step_mode="m"))
    with torch.no_grad():
        net[0].running_var.fill_(2.0), net[0].weight.uniform_(1, 2), net[0].bias.uniform_(-1, 1)
    ours = copy.deepcopy(net.train(training))
    assert tk.accelerate(ours).fused == {"0": "1"}
    results = []
    for n, dtype in ((net, torch.float32), (ours, half)):
        x = MANY.to(half).to(dtype).requires_grad_()
        with torch.autocast("cpu", half, enabled=autocast and n is ours):
            spikes = n(x)
        assert spikes.dtype is dtype
        spikes.backward(X.new_ones(()).expand_as(spikes).to(dtype) * MANY.cos().to(half).to(dtype))
        assert x.grad.dtype is dtype
        results.append((spikes.detach().float(), [x.grad, n[0].weight.grad, n[0].bias.grad]))
    (expected, expected_grads), (spikes, grads) = results
    assert 0.01 < expected.mean() < 0.95
    assert torch.equal(spikes, expected)
    for a, b in zip(grads, expected_grads, strict=True):
        assert relative_error(a, b) < GRADIENT_TOLERANCE[half]
    for name, value in ours[0].state_dict().items():
        assert value.dtype is net[0].state_dict()[name].dtype
        torch.testing.assert_close(value, net[0].state_dict()[name], rtol=1e-5, atol=1e-6)


def test_autocast_changes_no_dtype_between_layers(half):
    """Neurons run on our operators with their state in float32, and every other layer sees the same dtype as before."""
    plain = csnn()
    ours = copy.deepcopy(plain)
    assert len(tk.accelerate(ours).fused) == 2
    seen = []
    for net in (plain, ours):
        dtypes = []
        for module in net:
            if not isinstance(module, (neuron.BaseNode, layer.BatchNorm2d)):
                module.register_forward_hook(lambda _, args, y, to=dtypes: to.append((args[0].dtype, y.dtype)))
        with torch.autocast("cpu", half):
            dtypes.append(sequence(net, IMAGES).dtype)
        assert len(dtypes) == 8
        seen.append(dtypes)
    assert seen[0] == seen[1]
    assert [m.v.dtype for m in ours if isinstance(m, neuron.BaseNode)] == [torch.float32] * 4


def test_a_model_made_half(half):
    """A batch norm with half parameters stays torch's; neurons run on ours, also with a learned tau."""
    net = nn.Sequential(
        layer.BatchNorm1d(5, step_mode="m"), neuron.LIFNode(step_mode="m"), NODES["plif"](step_mode="m")
    )
    plain = copy.deepcopy(net).to(half)
    tk.accelerate(net)
    net.to(half)
    expected, spikes = sequence(plain, MANY.to(half)), sequence(net, MANY.to(half))
    assert spikes.dtype is expected.dtype
    assert net[1].v.dtype is net[2].v.dtype is torch.float32
    assert_spikes_equal(spikes, expected, 1e-2)


def test_the_last_accelerate_says_who_computes_half():
    node = neuron.IFNode(step_mode="m")
    for half, dtype in (("library", torch.bfloat16), ("ours", torch.float32), ("library", torch.bfloat16)):
        tk.accelerate(node, half=half)
        sequence(node, X.bfloat16())
        assert node.v.dtype is dtype
