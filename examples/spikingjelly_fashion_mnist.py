"""SpikingJelly's Fashion-MNIST tutorial network (CSNN), before and after `tmkt_kernels.accelerate`.

python examples/spikingjelly_fashion_mnist.py [--steps 30] [--data FOLDER]
"""

import functools

from race import batches, load_images, parse, race
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

import tmkt_kernels


def csnn(channels: int) -> nn.Module:
    """Two conv-BN-IF-pool blocks and two linear-IF layers, multi-step."""
    spiking = functools.partial(neuron.IFNode, surrogate_function=surrogate.ATan())
    net = nn.Sequential(
        layer.Conv2d(1, channels, 3, padding=1, bias=False),
        layer.BatchNorm2d(channels),
        spiking(),
        layer.MaxPool2d(2, 2),
        layer.Conv2d(channels, channels, 3, padding=1, bias=False),
        layer.BatchNorm2d(channels),
        spiking(),
        layer.MaxPool2d(2, 2),
        layer.Flatten(),
        layer.Linear(channels * 7 * 7, channels * 4 * 4, bias=False),
        spiking(),
        layer.Linear(channels * 4 * 4, 10, bias=False),
        spiking(),
    )
    functional.set_step_mode(net, "m")
    return net


def main() -> dict[str, float]:
    args = parse(__doc__ or "", channels=32)

    def firing_rate(net: nn.Module, images: Tensor) -> Tensor:
        functional.reset_net(net)
        rate: Tensor = net(images.expand(args.T, *images.shape)).mean(0)
        return rate

    data = batches(*load_images(args.data), args)
    # The one line is tmkt_kernels.accelerate(net).
    return race(lambda: csnn(args.channels), tmkt_kernels.accelerate, firing_rate, data, args)


if __name__ == "__main__":
    main()
