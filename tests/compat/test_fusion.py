"""A fused batch norm: when the pair runs as one operator, which uses are refused, and a container of SpikingJelly's."""

import copy
import pickle

import pytest
import torch
from torch import nn

import tmkt_kernels as tk

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from fusion_net import B, C, Net, T, X, assert_as_stock, prepared, replicated, training_or_not, untouched
from spikingjelly.activation_based import functional, layer, neuron


class Contained(nn.Module):
    """SpikingJelly's container of a convolution and a batch norm, which folds time into the batch."""

    def __init__(self):
        super().__init__()
        self.conv_bn = layer.SeqToANNContainer(nn.Conv2d(2, C, 3, bias=False), nn.BatchNorm2d(C))
        self.lif, self.switch = neuron.LIFNode(step_mode="m"), None

    def forward(self, x):
        return self.lif(self.conv_bn(x))


def container_alone(net, x):
    return net.conv_bn(x), net(x)


def hook_on_the_container(net, x):
    seen = []
    net.conv_bn.register_forward_hook(lambda m, args, out: seen.append(out))
    net.conv_bn.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 2,))
    return net(x), seen


def layers_up_to_one(net, x):
    getter = pytest.importorskip("torchvision.models._utils").IntermediateLayerGetter(net, {"conv_bn": "features"})
    return getter(x)


def compiled_container(net, x):
    net.conv_bn.compile(backend="aot_eager")
    return net(x)


@training_or_not
@pytest.mark.parametrize(
    "look",
    [lambda net, x: net(x), container_alone, hook_on_the_container, layers_up_to_one, compiled_container],
    ids=["net", "container alone", "hook", "IntermediateLayerGetter", "compiled"],
)
def test_a_container(look, training):
    assert_as_stock(look, training, Contained)


def test_the_pair_runs_as_one_operator_where_nobody_looks(fused_calls):
    net = prepared()
    tk.accelerate(net)
    copies = [net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.eval(), replicated(net)]
    for n in copies:
        functional.reset_net(n)
        n(X)
    with torch.inference_mode():
        net(X)
    assert fused_calls == [(T, B, C, 4, 4)] * 6
    net(X, features=True), net.bn(net.conv(X)), tk.restore(net)(X)
    assert len(fused_calls) == 6


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = Net(), layer.Linear(C, 2)

    def forward(self, x):
        return self.head(self.net(x).flatten(3).mean(3))


def test_a_module_in_two_owners(fused_calls):
    """accelerate on a part, then on the whole, then on both again gives one operator, and restore undoes all of it."""
    nested = Nested()
    assert tk.accelerate(nested.net).fused == {"bn": "lif"}
    assert not tk.accelerate(nested).fused
    tk.accelerate(nested.net)
    nested(X)
    assert len(fused_calls) == 1
    hooks = [m for m in nested.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == [nested.net]
    tk.restore(nested)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in nested.modules())
    assert "fused_pairs" not in vars(nested.net)


def test_outside_of_a_call_a_batch_norm_is_the_librarys():
    net = prepared()
    before = dict(vars(net.bn))
    tk.accelerate(net)
    net(X)
    assert type(net.bn) is layer.BatchNorm2d
    assert vars(net.bn).keys() == before.keys()


class ChangedBetween(Net):
    """The input of the batch norm changes in place before the call of the neuron."""

    def forward(self, x):
        y = self.conv(x)
        h = self.bn(y)
        y += 1
        return self.lif(h)


@pytest.mark.parametrize("change", [lambda y: y.mul_(2), lambda y: y[0].zero_(), lambda y: nn.ReLU(inplace=True)(y)])
def test_an_input_that_is_changed_before_the_neuron_is_called(change, monkeypatch):
    """The proof sees the change. On an unknown path the call is refused, because the batch norm's input is lost."""
    assert not tk.accelerate(ChangedBetween()).fused
    net = prepared().eval()
    tk.accelerate(net)
    monkeypatch.setattr(Net, "changed_later", lambda self, y, h: (change(y), self.lif(h))[1], raising=False)
    net.switch = "changed_later"
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"modified in place .* fuse_batch_norm=False"):
        net(X)
    net.switch = None
    net(X)


@pytest.mark.parametrize("ask", ["retain_grad", "register_hook", "autograd.grad"])
def test_the_gradient_at_a_batch_norms_output_is_refused_where_its_neuron_did_the_work(ask):
    net = prepared()
    tk.accelerate(net)
    net.switch = "kept"
    out = net(X)
    asks = {
        "retain_grad": lambda h: h.retain_grad(),
        "register_hook": lambda h: h.register_hook(untouched),
        "autograd.grad": lambda h: torch.autograd.grad(out.sum(), [h]),
    }
    with pytest.raises(RuntimeError, match="fuse_batch_norm=False"):
        asks[ask](net.last)


def test_code_below_python_sees_the_value():
    """An operator called without `__torch_function__` sees the value, and one that writes is refused."""
    net = prepared().eval()
    expected = net(X, features=True)
    tk.accelerate(net)
    net.switch = "called_by_a_user_function"
    seen = []

    def below(h):
        with torch._C.DisableTorchFunctionSubclass():
            seen.append(h.view_as(h) * 2)
            with torch.no_grad(), pytest.raises(RuntimeError, match="below Python"):
                h.mul_(2)
        return h

    net.mine = below
    net(X)
    torch.testing.assert_close(seen[0], expected * 2)
    seen[0].sum().backward()
    assert net.conv.weight.grad.any()
