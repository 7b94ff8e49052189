"""The convolutional network of snnTorch's tutorials, before and after `accelerate`, and with the loop in one call.

python examples/snntorch_tutorial.py [--T 25] [--data FOLDER]
"""

import torch
from race import batches, load_images, parse, race
from snntorch import Leaky, surrogate, utils
from torch import Tensor, nn

import tmkt_kernels


def tutorial_net() -> nn.Module:
    """12C5-MP2-64C5-MP2-1024FC10, snnTorch's tutorial 6."""
    options = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25), "init_hidden": True}
    return nn.Sequential(
        nn.Conv2d(1, 12, 5),
        nn.MaxPool2d(2),
        Leaky(**options),
        nn.Conv2d(12, 64, 5),
        nn.MaxPool2d(2),
        Leaky(**options),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
        Leaky(**options, output=True),
    )


def main() -> list[dict[str, float]]:
    args = parse(__doc__ or "", T=10)

    def in_a_loop(net: nn.Module, images: Tensor) -> Tensor:
        utils.reset(net)
        mem = [net(step)[1] for step in images.expand(args.T, *images.shape)]
        return torch.stack(mem).mean(0)

    def whole(net: nn.Module, images: Tensor) -> Tensor:
        from tmkt_kernels.compat.snntorch import over_time

        utils.reset(net)
        _, mem = over_time(net, images.expand(args.T, *images.shape))
        return mem.mean(0)

    data = batches(*load_images(args.data), args)
    print("The loop as it stands, one line: tmkt_kernels.accelerate(net)")
    loop = race(tutorial_net, tmkt_kernels.accelerate, in_a_loop, data, args)
    print("\nThat, and over_time(net, x_seq) in place of the loop")
    return [loop, race(tutorial_net, tmkt_kernels.accelerate, in_a_loop, data, args, forward_after=whole)]


if __name__ == "__main__":
    main()
