"""Paths around the neuron that the proof does not see: outputs, gradients and statistics stay the same."""

import contextlib
import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from fusion_net import B, C, Net, T, assert_as_stock, training_or_not
from spikingjelly.activation_based import functional

SCRIPTED = torch.jit.trace(lambda h: h * 2, torch.ones(2), check_trace=False)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * grad + 0 * x


class Paths(Net):
    """Paths around the neuron, one for each value of `switch`."""

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

    def out_of_order(self, y, h):
        second = self.lif(self.bn(y * 0.5 + 3))
        functional.reset_net(self)
        return self.lif(h) + second

    def shape_changed_in_place(self, y, h):
        h.unsqueeze_(0)
        assert h.shape[0] == 1
        assert h.dim() == y.dim() + 1
        return self.lif(h.squeeze_(0)) * h.ndim

    def by_keyword(self, y, h):
        assert torch.numel(input=h) == y.numel()
        return self.lif(torch.reshape(input=h, shape=y.shape))

    def vmapped(self, y, h):
        return self.lif(torch.vmap(lambda step: step * 2)(h))

    def under_a_saved_tensor_hook(self, y, h):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
            return self.lif(h) + h

    def without_saved_tensor_hooks(self, y, h):
        with torch.autograd.graph.disable_saved_tensors_hooks("none here"):
            return self.lif(h + 1)

    def scripted(self, y, h):
        return self.lif(SCRIPTED(h))

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

    def caught(self, y, h):
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0
        return self.lif(h)

    def pickled(self, y, h):
        return self.lif(h) + pickle.loads(pickle.dumps(h.detach())) + copy.deepcopy(h.detach())


SWITCHES = ["features", "kept", "called_by_a_user_function", *(name for name in vars(Paths) if name[0] != "_")]


def switched(name):
    def look(net, x):
        net.switch = name
        return net(x)

    return look


@training_or_not
@pytest.mark.parametrize("name", SWITCHES)
def test_paths_that_the_proof_did_not_see(name, training):
    assert_as_stock(switched(name), training, Paths)
