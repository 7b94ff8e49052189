"""SpikingJelly's neurons and a small network of them, with inputs."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

NODES = {
    "if": lambda **k: neuron.IFNode(**k),
    "lif": lambda **k: neuron.LIFNode(tau=1.7, **k),
    "lif, input not decayed": lambda **k: neuron.LIFNode(tau=3.0, decay_input=False, **k),
    "plif": lambda **k: neuron.ParametricLIFNode(init_tau=1.7, **k),
}
X = torch.randn(6, 4, 5, 40, generator=torch.Generator().manual_seed(0)) * 1.5
MANY = torch.randn(6, 8, 5, 1000, generator=torch.Generator().manual_seed(0)) * 1.5  # in half, rounding flips some


def sequence(net, x):
    functional.reset_net(net)
    return net(x)


def steps(net, x):
    functional.reset_net(net)
    return torch.stack([net(step) for step in x])


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
