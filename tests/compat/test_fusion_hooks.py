"""Hooks and modes that observe a fused batch norm, or change its output."""

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")

from fusion_net import assert_as_stock, training_or_not


def seen_by_a_hook(net, x):
    seen = []
    handles = [
        net.bn.register_forward_hook(lambda m, args, out: seen.append(out)),
        net.lif.register_forward_pre_hook(lambda m, args: seen.append(args[0])),
    ]
    seen.append(net(x))
    for handle in handles:
        handle.remove()
    return seen


def changed_by_a_hook(net, x):
    net.bn.register_forward_hook(lambda m, args, out: out * 2)
    return net(x)


def seen_by_a_global_hook(net, x):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, out: seen.append(out))
    try:
        net(x)
    finally:
        handle.remove()
    assert len(seen) >= 4
    return seen


def seen_by_a_global_hook_before(net, x):
    seen = []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda m, args: seen.append(args[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return seen


def gradients_seen_by_a_global_hook(net, x):
    seen = []
    handle = nn.modules.module.register_module_full_backward_hook(lambda m, grad_in, grad_out: seen.extend(grad_out))
    try:
        out = net(x)
        out.sum().backward(retain_graph=True)
    finally:
        handle.remove()
    assert len(seen) >= 3
    return [*seen, out]


def gradient_changed_by_a_hook(net, x):
    net.bn.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 3,))
    return net(x)


def hook_put_in_during_the_call(net, x):
    def put_in(conv, args, out):
        net.bn.register_forward_hook(lambda m, args, out: out * 2)

    net.conv.register_forward_hook(put_in)
    return net(x)


def norm_without_gradient(net, x):
    """The batch norm's output has no gradient, although gradients are recorded at the call of the neuron."""

    def gradients(recorded):
        return lambda *_: torch._C._set_grad_enabled(recorded)

    net.conv.register_forward_hook(gradients(False))
    net.switch, net.mine = "called_by_a_user_function", nn.Identity()
    net.mine.register_forward_pre_hook(gradients(True))
    return net(x), net.conv.weight.sum()


def seen_by_a_mode(net, x):
    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            names.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    names = []
    with Names():
        out = net(x)
    return out, torch.tensor(names.count("batch_norm"))


def forward_hooks_cleared(net, x):
    net._forward_hooks.clear()
    first = net(x)
    return first, net.bn(net.conv(x)), net(x, True)


LOOKS = [
    seen_by_a_hook,
    changed_by_a_hook,
    seen_by_a_global_hook,
    seen_by_a_global_hook_before,
    gradients_seen_by_a_global_hook,
    gradient_changed_by_a_hook,
    hook_put_in_during_the_call,
    norm_without_gradient,
    seen_by_a_mode,
    forward_hooks_cleared,
]


@training_or_not
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__.strip("<>"))
def test_other_ways_to_look(look, training):
    assert_as_stock(look, training)
