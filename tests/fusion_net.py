"""A network of SpikingJelly's with a fused batch norm, and its comparison with the unmodified library."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import tmkt_kernels as tk

T, B, C = 4, 3, 5
X = torch.randn(T, B, 2, 6, 6, generator=torch.Generator().manual_seed(5))


def untouched(h):
    return h


class Net(nn.Module):
    """A convolution, a batch norm and a neuron. `switch` names another path around the neuron. A test sets it after
    `accelerate`, so that the proof does not see it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = layer.Conv2d(2, C, 3, bias=False), layer.BatchNorm2d(C)
        self.lif, self.other, self.relu = neuron.LIFNode(), neuron.LIFNode(tau=4.0), nn.ReLU()
        self.switch, self.last, self.mine = None, None, untouched
        functional.set_step_mode(self, "m")

    def forward(self, x, features=False):
        y = self.conv(x)
        h = self.bn(y)
        if features or self.switch == "features":
            return h
        if self.switch is not None:
            return getattr(self, self.switch)(y, h)
        return self.lif(h)

    def features_only(self, x):
        return self.bn(self.conv(x))

    def by_hand(self, x):
        h = self.bn(self.conv(x))
        h += 1
        return self.lif(h)

    def kept(self, y, h):
        self.last = h
        return self.lif(h)

    def called_by_a_user_function(self, y, h):
        return self.lif(self.mine(h))


def tensors(outcome):
    return [t for t in torch.utils._pytree.tree_leaves(outcome) if isinstance(t, torch.Tensor)]


def everything(net, look, training):
    """Return outputs, gradients and statistics of one look at the net."""
    net.train(training)
    x = X.clone().requires_grad_()
    found = tensors(look(net, x))
    assert found
    sum((t * t.detach().cos()).sum() for t in found if t.requires_grad).backward()
    grads = {name: p.grad for name, p in net.named_parameters()} | {"x": x.grad}
    return found, grads, {name: value.clone() for name, value in net.state_dict().items()}


def prepared(make=Net):
    torch.manual_seed(1)
    net = make()
    for bn in (m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        with torch.no_grad():
            (
                bn.running_mean.uniform_(-1, 1),
                bn.running_var.uniform_(0.5, 2),
                bn.weight.uniform_(0.5, 2),
                bn.bias.fill_(0.3),
            )
    return net


def assert_as_stock(look, training, make=Net):
    stock, ours = prepared(make), prepared(make)
    assert tk.accelerate(ours).fused
    results = [everything(net, look, training) for net in (stock, ours)]
    (expected, grads, statistics), (found, our_grads, our_statistics) = results
    for actual, value in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-4, atol=1e-4)
    assert our_grads.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(our_grads[name], grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in statistics.items():
        torch.testing.assert_close(our_statistics[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


training_or_not = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def replicated(module):
    """Return a replica as nn.DataParallel makes it, which itself needs GPUs."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        if child is not None:
            replica._modules[name] = replicated(child)
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        replica._parameters.pop(name, None), replica._buffers.pop(name, None)
        setattr(replica, name, value * 1 if isinstance(value, nn.Parameter) else value)
    return replica
