"""accelerate on SpikingJelly 2.0.0: equal spikes, training and checkpoints; everything around a node still works."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import tmkt_kernels as tk
from tmkt_kernels.testing import assert_spikes_equal

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer, spiking_vgg
from spikingjelly_nets import IMAGES, NODES, X, csnn, sequence, steps

from tmkt_kernels.compat.spikingjelly import SURROGATES


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("kind", NODES)
def test_node(same_spikes, kind, detach_reset, v_reset, step_mode):
    node = NODES[kind](v_reset=v_reset, detach_reset=detach_reset, step_mode=step_mode)
    same_spikes(node, sequence if step_mode == "m" else steps, X, budget=0.0 if kind == "if" else 1e-4)


@pytest.mark.parametrize("function", SURROGATES, ids=lambda f: f.__name__)
def test_surrogate(same_spikes, function):
    node = neuron.LIFNode(tau=1.7, surrogate_function=function(), detach_reset=True, step_mode="m")
    same_spikes(node, sequence, X)


@pytest.mark.parametrize("v_reset", [0.2, None])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_v_seq_and_v(detach_reset, v_reset):
    """store_v_seq gives the potential after each reset, with its gradient; v persists from call to call."""
    nodes = [neuron.LIFNode(v_reset=v_reset, detach_reset=detach_reset, step_mode="m", store_v_seq=True) for _ in "ab"]
    tk.accelerate(nodes[1])
    results = []
    for node in nodes:
        x = X.clone().requires_grad_()
        first, second = node(x), node(x * 0.5)
        assert node.v_seq.shape == X.shape
        (node.v_seq.square().sum() + node.v.sum() + second.mean()).backward()
        results.append((first, second, node.v_seq, node.v, x.grad))
    for ours, theirs in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for node in nodes:
        functional.reset_net(node)
        assert node.v == (v_reset or 0.0)
        assert node.v_seq is None


def test_single_step_keeps_v_seq():
    nodes = [neuron.IFNode(step_mode="s", store_v_seq=True) for _ in "ab"]
    tk.accelerate(nodes[1])
    for node in nodes:
        steps(node, X)
    assert torch.equal(nodes[1].v_seq, nodes[0].v_seq)


def test_tutorial_network(compare_training):
    compare_training(csnn(), sequence, IMAGES, fused=2)


def test_tutorial_network_step_by_step(compare_training):
    net = csnn()
    functional.set_step_mode(net, "s")
    compare_training(net, steps, IMAGES, steps=12, fused=2)


@pytest.mark.slow
def test_spikformer(compare_training):
    options = {"img_size_h": 16, "img_size_w": 16, "patch_size": 4, "in_channels": 1, "num_classes": 4}
    net = spikformer.Spikformer(T=4, embed_dims=32, num_heads=4, depths=1, **options)
    report = compare_training(net, sequence, torch.rand(4, 6, 1, 16, 16), fused=7, lr=0.01)
    assert sorted(report.left) == [f"patch_embed.stages.{i}.conv_bn.block.1" for i in (2, 3)]  # pooled in between


def test_sew_resnet(compare_training):
    net = sew_resnet.sew_resnet18(
        num_classes=4, cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    functional.set_step_mode(net, "m")
    compare_training(net, sequence, torch.rand(2, 2, 3, 16, 16), steps=2, fused=20)


def test_vgg(compare_training):
    features = spiking_vgg.SpikingVGG.make_layers(
        [8, "M", 16, 16, "M"], True, None, neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    net = nn.Sequential(features, layer.Flatten(), layer.Linear(16 * 16, 4))
    functional.set_step_mode(net, "m")
    compare_training(net, sequence, torch.rand(4, 6, 3, 16, 16), steps=20, fused=3)


def test_parametric_lif_stays_beside_its_batch_norm(compare_training):
    net = csnn(node=lambda **k: neuron.ParametricLIFNode(v_threshold=0.3, **k))
    report = compare_training(net, sequence, IMAGES, steps=20, fused=0)
    assert "no learned tau" in report.left["1"]


def test_the_module_stays_the_same_object():
    net = csnn()
    before = list(net.modules())
    parameters = [id(p) for p in net.parameters()]
    seen = []
    net[2].register_forward_hook(lambda module, args, output: seen.append((args[0].clone(), output)))
    net.eval()
    report = tk.accelerate(net)
    assert report.model is net
    assert all(a is b for a, b in zip(net.modules(), before, strict=True))
    assert [id(p) for p in net.parameters()] == parameters
    assert isinstance(net[2], neuron.IFNode)
    assert not any(module.training for module in net.modules())
    plain = tk.restore(copy.deepcopy(net))
    assert torch.equal(sequence(net, IMAGES), sequence(plain, IMAGES))
    torch.testing.assert_close(seen[0][0], seen[1][0])  # a hook on the neuron sees the normalised input


@pytest.mark.parametrize("half", ["ours", "library"])
def test_restore(half):
    net = csnn()
    types = [type(module) for module in net.modules()]
    attributes = [set(module.__dict__) for module in net.modules()]
    tk.accelerate(net, half=half)
    sequence(net, IMAGES)
    assert tk.restore(net) is net
    assert [type(module) for module in net.modules()] == types
    assert [set(module.__dict__) for module in net.modules()] == attributes


def test_copy_leaves_the_model_alone(fused_calls):
    net = csnn()
    report = tk.accelerate(net, inplace=False)
    assert type(net[2]) is neuron.IFNode
    assert type(report.model[2]).replaces is neuron.IFNode
    again = pickle.loads(pickle.dumps(report.model))
    assert torch.equal(sequence(again, IMAGES), sequence(report.model, IMAGES))
    assert len(fused_calls) == 4


def test_monitor_and_later_changes():
    """Later changes to a node take effect: monitors, attributes, step mode."""
    net = csnn()
    tk.accelerate(net)
    plain = tk.restore(copy.deepcopy(net))
    for n in (net, plain):
        n[2].v_threshold, n[2].surrogate_function = 0.4, surrogate.PiecewiseExp()
        n[6].v_reset, n[10].detach_reset = None, True
    monitors = [monitor.OutputMonitor(n, neuron.IFNode) for n in (net, plain)]
    outputs = [sequence(n, IMAGES) for n in (net, plain)]
    assert torch.equal(*outputs)
    for a, b in zip(monitors[0].records, monitors[1].records, strict=True):
        assert_spikes_equal(a, b, 1e-4)
    for n in (net, plain):
        functional.set_step_mode(n, "s")
    assert torch.equal(*(steps(n, IMAGES) for n in (net, plain)))


def test_surrogate_set_later_without_an_equal_runs_as_before():
    node = neuron.IFNode(step_mode="m")
    tk.accelerate(node)
    node.surrogate_function = type("Mine", (surrogate.ATan,), {})()
    assert "Mine" in type(node).problem(node)
    ours = sequence(node, X)
    assert torch.equal(ours, sequence(tk.restore(node), X))


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (neuron.IFNode(surrogate_function=surrogate.PoissonPass()), "surrogate PoissonPass has no equal"),
        (neuron.IFNode(surrogate_function=surrogate.ATan(spiking=False)), "spiking=False"),
        (neuron.QIFNode(), "QIFNode has no equal"),
        (type("MyNode", (neuron.LIFNode,), {})(), "subclass that may differ"),
    ],
)
def test_left_alone(node, why):
    report = tk.accelerate(nn.Sequential(node))
    assert not report.replaced
    assert why in report.left["0"]
    assert f"left alone: 0: {report.left['0']}" in str(report)


def test_another_version_is_left_alone(monkeypatch):
    net = csnn()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.0.0.14")
    report = tk.accelerate(net)
    assert not report.replaced
    assert "left alone: all of spikingjelly 0.0.0.0.14" in str(report)


def test_twice_is_once():
    net = csnn()
    tk.accelerate(net)
    again = tk.accelerate(net)
    assert not again.replaced
    assert not again.fused
    assert not again.left


def test_explicit_states():
    """to_functional_forward does not call a node's forward, but the batch norm before it is still applied."""
    net = csnn().eval()
    states = (0.0,) * 4
    expected, _ = base.to_functional_forward(net)((IMAGES,), states)
    tk.accelerate(net)
    actual, updated = base.to_functional_forward(net)((IMAGES,), states)
    assert torch.equal(actual[0], expected[0])
    assert len(updated) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles(dtype):
    net = nn.Sequential(layer.BatchNorm2d(1, step_mode="m"), neuron.IFNode(step_mode="m"))
    expected = sequence(net, IMAGES.to(dtype).float()).to(dtype)
    tk.accelerate(net)
    functional.reset_net(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    spikes = compiled(IMAGES.to(dtype))
    assert spikes.dtype is dtype
    assert_spikes_equal(spikes.detach(), expected.detach(), 1e-3)
    compiled(IMAGES.to(dtype))  # also one graph with a v that persists


@pytest.mark.parametrize("kind", NODES)
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_training_goes_on_after_inference_mode(kind, step_mode):
    nodes = [NODES[kind](step_mode=step_mode) for _ in "ab"]
    tk.accelerate(nodes[1])
    grads = []
    for node in nodes:
        with torch.inference_mode():
            node(X[:2] if step_mode == "m" else X[0])
        x = X.clone().requires_grad_()
        node(x if step_mode == "m" else x[0]).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kind", NODES)
def test_traced_and_saved(kind):
    """torch.jit.trace and save work as on SpikingJelly's own nodes under no_grad."""
    nodes = [NODES[kind](step_mode="m") for _ in "ab"]
    tk.accelerate(nodes[1])
    results = []
    for node in nodes:
        with torch.no_grad():
            traced = torch.jit.trace(node, X, check_trace=False)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        results.append(torch.jit.load(file)(X))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("name", "value"), [("v_threshold", float("inf")), ("tau", 0.8), ("tau", float("nan")), ("v_threshold", -0.1)]
)
def test_a_parameter_that_our_operator_refuses_is_spikingjellys(name, value):
    """Set later or from the start, for example an integrator that never fires."""
    nodes = [neuron.LIFNode(step_mode="m") for _ in "ab"]
    tk.accelerate(nodes[1])
    for node in nodes:
        setattr(node, name, value)
    expected, ours = (sequence(node, X) for node in nodes)
    torch.testing.assert_close(ours, expected, equal_nan=True)
    torch.testing.assert_close(nodes[1].v, nodes[0].v, equal_nan=True)


def test_a_parameter_that_our_operator_refuses_is_in_the_report():
    report = tk.accelerate(neuron.LIFNode(v_threshold=float("inf")))
    assert "v_threshold: expected a finite float, got inf" in report.left[""]


def test_second_order_gradients(fused_calls):
    """A gradient penalty works as on SpikingJelly's own nodes."""
    net = nn.Sequential(layer.BatchNorm1d(5, step_mode="m"), NODES["lif"](step_mode="m"), NODES["plif"](step_mode="m"))
    ours = copy.deepcopy(net)
    tk.accelerate(ours)
    grads = []
    for n in (net, ours):
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad((sequence(n, x) * X.cos()).sum(), x, create_graph=True)
        grads.append(torch.autograd.grad(first.square().sum(), [x, n[0].weight, n[2].w]))
    assert fused_calls
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-4)
