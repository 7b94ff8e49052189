"""A fused batch norm answers every question as before: outputs, gradients, statistics, whoever asks, and however."""

import contextlib
import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import tmkt_kernels as tk

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import functional, layer, neuron

T, B, C = 4, 3, 5
X = torch.randn(T, B, 2, 6, 6, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """A convolution, a batch norm and a neuron, and ways around the neuron that the proof does not see: `switch` is set
    after `accelerate`."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = layer.Conv2d(2, C, 3, bias=False), layer.BatchNorm2d(C)
        self.lif, self.other, self.relu = neuron.LIFNode(), neuron.LIFNode(tau=4.0), nn.ReLU()
        self.switch, self.last, self.mine = None, None, lambda h: h
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

    def activation(self, y, h):
        return self.relu(h)

    def another_neuron(self, y, h):
        return self.other(h)

    def added_in_place(self, y, h):
        h += 1
        return self.lif(h)

    def scaled_in_place(self, y, h):
        h.mul_(2.0)
        h[0] = 0.5
        return self.lif(h)

    def residual(self, y, h):
        return self.lif(h) + h

    def residual_before(self, y, h):
        return h * 0.5 + self.lif(h)

    def twice(self, y, h):
        return self.lif(h) + self.lif(h)

    def kept(self, y, h):
        self.last = h
        return self.lif(h)

    def returned(self, y, h):
        return {"spikes": [self.lif(h)], "features": (h, h.flatten(1))}

    def dropped(self, y, h):
        return self.relu(y)

    def reshaped(self, y, h):
        return self.lif(h.reshape(T, B, C, -1).unflatten(3, h.shape[3:]).view(h.shape))

    def permuted(self, y, h):
        return self.lif(h.transpose(3, 4))

    def stacked(self, y, h):
        return torch.cat([self.lif(torch.stack([h, h]).mean(0)), h])

    def without_gradient(self, y, h):
        with torch.no_grad():
            mean = h.mean()
        return self.lif(h) * mean

    def detached(self, y, h):
        return self.lif(h.detach()) + h.sum()

    def data(self, y, h):
        h.data.clamp_(min=0)
        return self.lif(h)

    def numpy(self, y, h):
        return self.lif(h) + float(h.detach().numpy().sum())

    def autograd_function(self, y, h):
        return self.lif(Doubled.apply(h))

    def autograd_function_alone(self, y, h):
        return Doubled.apply(h)

    def autograd_function_reshaped(self, y, h):
        return Doubled.apply(h.flatten(0, 1).view(h.shape))

    def checkpointed(self, y, h):
        def rested(h):
            functional.reset_net(self)
            return self.lif(h)

        return checkpoint(rested, h, use_reentrant=False)

    def gradient_of_it(self, y, h):
        (grad,) = torch.autograd.grad(h.square().sum(), h) if h.requires_grad else (h,)
        return self.lif(h + grad)

    def hooked(self, y, h):
        if h.requires_grad:
            h.register_hook(lambda grad: grad * 3)
        return self.lif(h)

    def called_by_a_user_function(self, y, h):
        return self.lif(self.mine(h))

    def caught(self, y, h):
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0
        return self.lif(h)

    def pickled(self, y, h):
        return self.lif(h) + pickle.loads(pickle.dumps(h.detach())) + copy.deepcopy(h.detach())


SWITCHES = [name for name in vars(Net) if name not in ("__init__", "forward", "features_only", "by_hand")]
SWITCHES = [name for name in SWITCHES if not name.startswith("_")]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * grad + 0 * x


def switched(name):
    def look(net, x):
        net.switch = name
        return net(x)

    return look


def tensors(outcome):
    return [t for t in torch.utils._pytree.tree_leaves(outcome) if isinstance(t, torch.Tensor)]


def everything(net, look, training):
    """Outputs, gradients and statistics of one look at the net."""
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
    results = []
    for accelerated in (False, True):
        net = prepared(make)
        if accelerated:
            assert tk.accelerate(net).fused
        results.append(everything(net, look, training))
    (expected, grads, statistics), (found, our_grads, our_statistics) = results
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert our_grads.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(our_grads[name], grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in statistics.items():
        torch.testing.assert_close(our_statistics[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


training_or_not = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


@training_or_not
@pytest.mark.parametrize("name", ["features", *SWITCHES])
def test_paths_that_the_proof_did_not_see(name, training):
    assert_as_stock(switched(name), training)
