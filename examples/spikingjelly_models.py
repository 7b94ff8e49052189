"""SpikingJelly's spiking VGG-11 with batch norm and SEW-ResNet18 on 32x32 images, before and after `accelerate`.

python examples/spikingjelly_models.py [--batch 32] [--size 32] [--steps 7] [--bf16]

The images are random, because only the training step is measured. VGG-11's classifier has 120 million weights. They are
present in both runs, with their gradients and optimiser state, and are not counted in the peak.
"""

import argparse
from collections.abc import Callable

import torch
from race import parse, race
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_resnet18
from spikingjelly.activation_based.model.spiking_vgg import spiking_vgg11_bn
from torch import Tensor, nn

import tmkt_kernels


def vgg11() -> nn.Module:
    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    return spiking_vgg11_bn(num_classes=10, spiking_neuron=neuron.LIFNode, init_weights=False, **options)


def sew() -> nn.Module:
    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    return sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=neuron.IFNode, **options)


def compare(make: Callable[[], nn.Module], args: argparse.Namespace) -> dict[str, float]:
    def multi_step() -> nn.Module:
        net = make()
        functional.set_step_mode(net, "m")
        return net

    def logits(net: nn.Module, images: Tensor) -> Tensor:
        functional.reset_net(net)
        mean: Tensor = net(images.expand(args.T, *images.shape)).mean(0)
        return mean

    generator = torch.Generator().manual_seed(args.seed)
    images = torch.rand(args.batch, 3, args.size, args.size, generator=generator).to(args.device)
    data = [(images, torch.arange(args.batch).to(args.device) % 10)] * args.steps
    shown = f"T = {args.T}, batch {args.batch}, {args.size}x{args.size}, {torch.get_num_threads()} thread(s)"
    print(f"\n{make.__name__}, {shown}")
    return race(multi_step, tmkt_kernels.accelerate, logits, data, args)


def main() -> list[dict[str, float]]:
    args = parse(__doc__ or "", steps=7, batch=32, size=32)
    return [compare(make, args) for make in (vgg11, sew)]


if __name__ == "__main__":
    main()
