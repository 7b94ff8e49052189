"""accelerate on SpikingJelly 2.0.0: equal spikes, training and checkpoints; all around a node goes on working."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import tmkt_kernels as tk
from tmkt_kernels.testing import GRADIENT_TOLERANCE, assert_spikes_equal, relative_error

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer, spiking_vgg

from tmkt_kernels.compat.spikingjelly import SURROGATES
from tmkt_kernels.nn import convert_sync_batchnorm

NODES = {
    "if": lambda **k: neuron.IFNode(**k),
    "lif": lambda **k: neuron.LIFNode(tau=1.7, **k),
    "lif, input not decayed": lambda **k: neuron.LIFNode(tau=3.0, decay_input=False, **k),
    "plif": lambda **k: neuron.ParametricLIFNode(init_tau=1.7, **k),
}
X = torch.randn(6, 4, 5, 40, generator=torch.Generator().manual_seed(0)) * 1.5
MANY = torch.randn(6, 8, 5, 1000, generator=torch.Generator().manual_seed(0)) * 1.5  # in half, some round to a flip


def sequence(net, x):
    functional.reset_net(net)
    return net(x)


def steps(net, x):
    functional.reset_net(net)
    return torch.stack([net(step) for step in x])


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
    """store_v_seq gives the potential after each reset, with its gradient; v goes on from call to call."""
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


def csnn(channels=8, node=neuron.IFNode):
    """The network of SpikingJelly's Fashion-MNIST tutorial, narrower, on 12x12."""
    net = nn.Sequential(
        layer.Conv2d(1, channels, 3, padding=1, bias=False),
        layer.BatchNorm2d(channels),
        node(surrogate_function=surrogate.ATan()),
        layer.MaxPool2d(2, 2),
        layer.Conv2d(channels, channels, 3, padding=1, bias=False),
        layer.BatchNorm2d(channels),
        node(surrogate_function=surrogate.ATan()),
        layer.MaxPool2d(2, 2),
        layer.Flatten(),
        layer.Linear(channels * 9, 16, bias=False),
        node(surrogate_function=surrogate.ATan()),
        layer.Linear(16, 10, bias=False),
        node(surrogate_function=surrogate.ATan()),
    )
    functional.set_step_mode(net, "m")
    return net


IMAGES = torch.rand(4, 8, 1, 12, 12, generator=torch.Generator().manual_seed(3))


def test_tutorial_network(compare_training):
    compare_training(csnn(), sequence, IMAGES, fused=2)


def test_tutorial_network_step_by_step(compare_training):
    net = csnn()
    functional.set_step_mode(net, "s")
    compare_training(net, steps, IMAGES, steps=12, fused=2)


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
    """What SpikingJelly's users do to a node afterwards is obeyed: monitors, attributes, step mode."""
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
    """v is float32 and unrounded: over calls in half, and then in float32, spikes stay SpikingJelly's in float32.
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
    """Where the user set it, and at v_reset for a new batch size."""
    nodes = [neuron.IFNode(v_reset=0.2, step_mode="m") for _ in "ab"]
    tk.accelerate(nodes[1])
    for node in nodes:
        node.v = 0.3
    for x in (MANY[:1], MANY[1:2, :3]):
        expected, spikes = nodes[0](x.to(half).float()), nodes[1](x.to(half))
        assert torch.equal(spikes.float(), expected)
        assert torch.equal(nodes[1].v, nodes[0].v)


def test_v_is_differentiable_in_half(half):
    """Through v from a call in half to one in float32."""
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
    """The two as one operator: half in, half out, parameters and running statistics in float32."""
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
    """Neurons run on our operators, with their state in float32, and every other layer sees the dtype that it saw."""
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
    """Batch norm with half parameters stays torch's; neurons, a learned tau among them, are ours."""
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


def test_running_statistics_and_momentum(compare_training):
    """momentum=None averages all batches; without running statistics those of the batch serve in evaluation too."""
    net = csnn(node=lambda **k: neuron.IFNode(v_threshold=0.5, **k))
    net[1] = layer.BatchNorm2d(8, momentum=None, step_mode="m")
    net[5] = layer.BatchNorm2d(8, affine=False, track_running_stats=False, step_mode="m")
    compare_training(net, sequence, IMAGES, steps=10, fused=2)
    assert net[1].num_batches_tracked == 10


def test_batch_norm_refuses_as_before():
    net = nn.Sequential(layer.BatchNorm2d(3, step_mode="m"), neuron.IFNode(step_mode="m"))
    tk.accelerate(net)
    with pytest.raises((RuntimeError, ValueError), match=r"running_mean|channels|shape"):
        net(torch.rand(2, 2, 4, 5, 5))
    with pytest.raises(ValueError, match="expected x with shape"):
        net(torch.rand(2, 2, 3))


def test_explicit_states():
    """to_functional_forward calls a node by another door than forward: the batch norm before it is still applied."""
    net = csnn().eval()
    states = (0.0,) * 4
    expected, _ = base.to_functional_forward(net)((IMAGES,), states)
    tk.accelerate(net)
    actual, updated = base.to_functional_forward(net)((IMAGES,), states)
    assert torch.equal(actual[0], expected[0])
    assert len(updated) == 4


@pytest.mark.parametrize(
    ("norm", "step_mode", "shape"),
    [(nn.BatchNorm1d(5), "m", (6, 5, 7)), (layer.BatchNorm2d(5, step_mode="m"), "s", (3, 4, 5, 6, 6))],
)
def test_channels_in_another_place_are_normalised_where_they_are(norm, step_mode, shape):
    net = nn.Sequential(norm, neuron.IFNode(step_mode=step_mode))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1
    expected = sequence(net, x)
    assert len(tk.accelerate(net).fused) == 1
    net[0].reset_running_stats()
    assert torch.equal(sequence(net, x), expected)


def test_other_batch_norms_put_in_later():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), neuron.IFNode()).eval()
    expected = sequence(net, IMAGES[0])
    tk.accelerate(net)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert torch.equal(sequence(converted, IMAGES[0]), expected)


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
    compiled(IMAGES.to(dtype))  # one graph with a v that goes on, too


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
    """torch.jit.trace and save, as they work on SpikingJelly's own nodes under no_grad."""
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
    "make", [layer.BatchNorm2d, lambda c, **k: layer.ThresholdDependentBatchNorm2d(1.0, 0.5, c)], ids=["plain", "tdBN"]
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [3, 8])
def test_synchronised_batch_norm_keeps_its_channels(batch, training, make):
    """In multi-step mode channels are dimension 2, whatever the batch; as many samples as channels raise no error."""
    norm = nn.Sequential(make(8, step_mode="m")).train(training)
    torch.manual_seed(1)
    norm[0].running_mean.uniform_(), norm[0].weight.data.uniform_()
    converted = convert_sync_batchnorm(copy.deepcopy(norm))
    x = torch.randn(4, batch, 8, 5, 5)
    torch.testing.assert_close(converted(x), norm(x))
    torch.testing.assert_close(converted.state_dict(), norm.state_dict())
    with pytest.raises((ValueError, AssertionError)):
        converted(x[0])


def test_synchronised_in_single_step_mode_and_back():
    net = csnn().eval()
    converted = convert_sync_batchnorm(copy.deepcopy(net))
    for n in (net, converted):
        functional.set_step_mode(n, "s")
    assert torch.equal(steps(converted, IMAGES), steps(net, IMAGES))
    for n in (net, converted):
        functional.set_step_mode(n, "m")
    assert torch.equal(sequence(convert_sync_batchnorm(converted), IMAGES), sequence(net, IMAGES))


def test_a_batch_norm_that_does_more_is_not_synchronised():
    """Its forward would be lost; the model stays as it was."""
    net = nn.Sequential(layer.BatchNorm2d(3), nn.Sequential(layer.TemporalEffectiveBatchNorm2d(4, 3)))
    with pytest.raises(TypeError, match=r"1\.0: TemporalEffectiveBatchNorm2d has a forward of its own"):
        convert_sync_batchnorm(net)
    assert type(net[0]) is layer.BatchNorm2d


def test_a_batch_norm_with_two_names_is_synchronised_under_both():
    norm = nn.BatchNorm2d(3)
    net = convert_sync_batchnorm(nn.ModuleDict({"a": norm, "b": norm}))
    assert [type(m).__name__ for m in net._modules.values()] == ["SyncBatchNorm"] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("v_threshold", float("inf")), ("tau", 0.8), ("tau", float("nan")), ("v_threshold", -0.1)]
)
def test_a_parameter_that_our_operator_refuses_is_spikingjellys(name, value):
    """Set later, or from the start: an integrator that never fires, say."""
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
    """A gradient penalty, as on SpikingJelly's own."""
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
