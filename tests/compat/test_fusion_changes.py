"""Modules that are replaced, changed or copied after accelerate."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import tmkt_kernels as tk

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from fusion_net import assert_as_stock, training_or_not
from spikingjelly.activation_based import functional, neuron


def neuron_replaced(net, x):
    net.lif = neuron.LIFNode(tau=3.0, v_threshold=0.4, step_mode="m")
    return net(x)


def neuron_replaced_by_an_accelerated_one(net, x):
    net.lif = nn.Sequential(neuron.LIFNode(tau=3.0, v_threshold=0.4, step_mode="m"))
    tk.accelerate(net.lif)
    return net(x)


def neurons_exchanged(net, x):
    net.lif, net.other = net.other, net.lif
    return net(x)


def layer_inserted(net, x):
    net.lif = nn.Sequential(nn.ReLU(inplace=True), net.lif)
    return net(x)


def copying_layer_inserted(net, x):
    net.lif = nn.Sequential(nn.Softplus(), net.lif)
    return net(x)


def norm_replaced(net, x):
    net.bn = nn.Sequential(net.bn, nn.Tanh())
    return net(x)


def norm_parametrized(net, x):
    nn.utils.parametrize.register_parametrization(net.bn, "weight", nn.Softplus())
    return net(x)


def forward_of_the_norm_replaced(net, x):
    net.bn.forward = lambda y, normalise=net.bn.forward: normalise(y) * 2
    return net(x)


def neuron_restored(net, x):
    tk.restore(net.lif)
    return net(x)


def norm_restored(net, x):
    tk.restore(net.bn)
    return net(x), net.bn(net.conv(x))


def recalibrated(net, x):
    net.bn.reset_running_stats()
    net.bn.momentum = None
    net.bn.train()
    with torch.no_grad():
        for part in x.split(1):
            net.bn(net.conv(part))
    net.bn.eval()
    return net(x)


def recalibrated_in_the_net(net, x):
    net.bn.train()
    net(x.detach()), net(x.detach() * 2, features=True)
    net.bn.eval()
    functional.reset_net(net)
    return net(x)


def in_double(net, x):
    return net.double()(x.double()).float(), net(x.double(), True).float()


def parameters_changed_right_after(net, x):
    """An unused output has statistics from the time of the batch norm's call, not from later."""
    features = net(x, features=True).clone()
    net.bn.weight.data.mul_(2), net.bn.running_mean.data.add_(1)
    return features


def pruned(net, x):
    prune.l1_unstructured(net.bn, "weight", 0.5)
    return net(x)


def frozen(net, x):
    net.bn.eval()
    net.bn.requires_grad_(False)
    out = net(x)
    for p in net.bn.parameters():
        p.requires_grad_().grad = torch.zeros_like(p)
    return out


def without_a_count_of_batches(net, x):
    net.bn.num_batches_tracked = None
    return net(x)


def without_running_statistics(net, x):
    net.bn.running_mean = net.bn.running_var = None
    return net(x)


def without_scale_and_offset(net, x):
    net.bn.weight = net.bn.bias = None
    return net(x)


def averaged(net, x):
    average = torch.optim.swa_utils.AveragedModel(net)
    torch.optim.swa_utils.update_bn([x.detach(), x.detach() * 2], average)
    functional.reset_net(average)
    return average.module(x), average.module.features_only(x), net.features_only(x), *average.module.buffers()


def folded_into_the_convolution(net, x):
    """For inference, as in torch."""
    net.eval()
    net.conv, net.bn = nn.utils.fuse_conv_bn_eval(net.conv, net.bn), nn.Identity()
    return net(x)


def shallow_copy(net, x):
    other = copy.copy(net)
    other._modules = dict(net._modules, lif=neuron.LIFNode(tau=3.0, step_mode="m"))
    return other(x), net(x, True)


def owner_in_another_owner(net, x):
    whole = nn.Sequential(net, nn.Flatten(2))
    if hasattr(type(net.lif), "replaces"):
        tk.accelerate(whole)
    return whole(x), net(x, True), whole[0].bn(net.conv(x))


LOOKS = [
    neuron_replaced,
    neuron_replaced_by_an_accelerated_one,
    neurons_exchanged,
    layer_inserted,
    copying_layer_inserted,
    norm_replaced,
    norm_parametrized,
    forward_of_the_norm_replaced,
    neuron_restored,
    norm_restored,
    recalibrated,
    recalibrated_in_the_net,
    in_double,
    parameters_changed_right_after,
    pruned,
    frozen,
    without_a_count_of_batches,
    without_running_statistics,
    without_scale_and_offset,
    averaged,
    folded_into_the_convolution,
    shallow_copy,
    owner_in_another_owner,
]


@training_or_not
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__.strip("<>"))
def test_other_ways_to_look(look, training):
    assert_as_stock(look, training)
