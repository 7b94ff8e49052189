"""SpikingJelly's own models, a training step and inference: unchanged, compiled, and after `tmkt_kernels.accelerate`.

SEW-ResNet18 (arXiv 2102.04159) on 224x224 images, Spikformer-4-384 (arXiv 2209.15425) on 32x32; T = 4, weights and
images are random. Without SpikingJelly there are no cases.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.case import HALVES, Case, Contestant, Inputs, Shape, Traffic, copy
from benchmarks.networks import Rested, Step, inference, prepared, spikingjelly_contestants, training_step
from benchmarks.rivals import is_installed

CLASSES = 10


def sew_resnet18(shape: Shape) -> nn.Module:
    """Shortcuts that add, and IF neurons, as the authors trained it on ImageNet."""
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model.sew_resnet import sew_resnet18

    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = sew_resnet18(num_classes=CLASSES, cnf="ADD", spiking_neuron=neuron.IFNode, **options)
    functional.set_step_mode(net, "m")
    return net


def spikformer(shape: Shape) -> nn.Module:
    """4 blocks of 384 features and 12 heads, on patches of 4x4; 32 features and 4 heads for the smallest images."""
    from spikingjelly.activation_based.model.spikformer import Spikformer

    size = {"T": shape[0], "img_size_h": shape[-2], "img_size_w": shape[-1], "patch_size": 4}
    dim, heads, depth = (384, 12, 4) if shape[-1] >= 32 else (32, 4, 1)
    return Spikformer(**size, num_classes=CLASSES, embed_dims=dim, num_heads=heads, depths=depth)


Make = Callable[[Shape], nn.Module]


def build(make: Make, step: Step, device: str, shape: Shape) -> nn.Module:
    """Build with the same weights and statistics each time, without a change of the inputs' generator."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return prepared(make(shape).to(device), step, images(device, shape))


def images(device: str, shape: Shape) -> torch.Tensor:
    """Repeat the same image in each step."""
    return torch.rand(shape[1:], device=device).expand(shape).contiguous()


def inputs(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    x = images(device, shape)
    labels = torch.arange(shape[1], device=device) % CLASSES
    return Inputs(x=x, labels=labels, dtype=dtype, data=x, out=torch.empty_like(x))


def contestants(make: Make, step: Step) -> Callable[..., dict[str, Contestant]]:
    def all_of_them(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
        found = {"copy_": Contestant(copy)}
        return found | spikingjelly_contestants(build(make, step, device, shape), step, dtype)

    return all_of_them


def expected(make: Make, step: Step) -> Callable[[Inputs], torch.Tensor]:
    """Return the result of the unchanged model."""
    return lambda inputs: step(Rested(build(make, step, inputs.x.device.type, tuple(inputs.x.shape))), inputs)


@functools.cache
def counted(make: Make, device: str, shape: Shape) -> Traffic:
    """Count one forward pass: operations of its convolutions and linear layers (without attention's two products), and
    values in and out of these and of the neurons."""
    operations = values = 0

    dense = nn.Conv1d, nn.Conv2d, nn.Linear

    def count(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        nonlocal operations, values
        if isinstance(module, dense):
            operations += 2 * out.numel() * module.weight[0].numel()
        values += given[0].numel() + out.numel()

    net = make(shape).to(device).train()
    for module in net.modules():
        if isinstance(module, dense) or hasattr(module, "surrogate_function"):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(images(device, shape))
    return Traffic(values, operations)


def traffic(make: Make, step: Step) -> Callable[[Inputs], Traffic]:
    """As for VGG-SNN, three times forward's operations and values with the backward. Weights are left out."""

    def count(inputs: Inputs) -> Traffic:
        T, B, *rest = inputs.x.shape
        values, operations = counted(make, inputs.x.device.type, (T, 1, *rest))
        passes = 3 if step is training_step else 1
        return Traffic(passes * B * values * inputs.dtype.itemsize, passes * B * operations)

    return count


def case(make: Make, name: str, step: Step, shape: Shape, cuda_shape: Shape, small: Shape, rank: int) -> Case:
    return Case(
        make.__name__,
        name,
        shape,
        inputs,
        contestants(make, step),
        expected(make, step),
        traffic(make, step),
        yardstick="tmkt accelerate",
        cuda_shape=cuda_shape,
        cuda_dtypes=HALVES[:2],
        devices=("cuda",),
        small=small,
        model=True,
        rank=rank,
    )


CASES = [
    case(make, name, step, shape, cuda_shape, small, rank)
    for name, step, rank in (("training step", training_step, 2), ("inference", inference, 3))
    for make, shape, cuda_shape, small in (
        (sew_resnet18, (4, 1, 3, 32, 32), (4, 32, 3, 224, 224), (2, 2, 3, 32, 32)),
        (spikformer, (4, 1, 3, 32, 32), (4, 64, 3, 32, 32), (2, 2, 3, 16, 16)),
    )
    if is_installed("spikingjelly")
]
