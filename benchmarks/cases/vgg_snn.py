"""Whole models: VGG-SNN at the paper's sizes, a training step and inference, with our layers and with the rivals'.

All contestants are the same chain of modules with the same weights, except for "batch norm, neuron". Each call first
resets the rivals' neurons, and SpikingJelly's modules with the whole net.
"""

import copy as copying
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.case import HALVES, Case, Contestant, Inputs, Shape, Target, Traffic, copy, our_backends
from benchmarks.cases.bn_lif import chain
from benchmarks.networks import Step, check, inference, spikingjelly_contestants, training_step
from benchmarks.rivals import is_installed, plain_loop
from tmkt_kernels.nn import BatchNormLIF2d

POOL = "pool"
LAYOUT = (64, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
SMALL_LAYOUT = (4, POOL, 8, POOL)
V_THRESHOLD = 0.5
CLASSES = 101


class Conv(nn.Conv2d):
    """3x3, step by step."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x_seq: Tensor) -> Tensor:
        return super().forward(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


class BatchNormThen(nn.BatchNorm2d):
    """Batch norm and a neuron, optionally pooled, compiled as one function."""

    def __init__(self, channels: int, pooled: bool, neuron: Callable[[Tensor], Tensor]) -> None:
        super().__init__(channels)
        self.run = torch.compile(chain(super().forward, neuron, pooled), dynamic=False)

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.run(x_seq)


def ours(channels: int, pooled: bool, backend: str) -> nn.Module:
    return BatchNormLIF2d(channels, v_threshold=V_THRESHOLD, pool=2 if pooled else 1, backend=backend)


def spikingjelly(channels: int, pooled: bool) -> nn.Module:
    """SpikingJelly's modules, in its multi-step mode."""
    from spikingjelly.activation_based import layer, neuron, surrogate

    fire = neuron.LIFNode(
        v_threshold=V_THRESHOLD, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
    )
    pool = [layer.AvgPool2d(2, step_mode="m")] if pooled else []
    return nn.Sequential(layer.BatchNorm2d(channels, step_mode="m"), fire, *pool)


class VGG(nn.Module):
    """x_seq [T, B, 2, H, W] -> logits [T, B, CLASSES]; `norm_neuron(channels, pooled)` is a layer."""

    def __init__(self, layout: tuple[int | str, ...], size: int, norm_neuron: Callable[[int, bool], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2
        for layer, following in zip(layout, (*layout[1:], None), strict=True):
            if isinstance(layer, str):
                size //= 2
                continue
            layers += [Conv(channels, layer), norm_neuron(layer, following == POOL)]
            channels = layer
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * size * size, CLASSES)

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.head(self.features(x_seq).flatten(2))


def inputs(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    frames = torch.poisson(torch.full(shape, 0.3, device=device))
    labels = torch.randint(0, CLASSES, (shape[1],), device=device)
    return Inputs(x=frames, labels=labels, dtype=dtype, data=frames, out=torch.empty_like(frames))


def build(norm_neuron: Callable[[int, bool], nn.Module], device: str, shape: Shape) -> nn.Module:
    """Build with the same weights for all, from one seed, without a change of the inputs' generator."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return VGG(LAYOUT if shape[-1] >= 16 else SMALL_LAYOUT, shape[-1], norm_neuron).to(device)


def contestants(step: Step) -> Callable[..., dict[str, Contestant]]:
    def make(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
        def contestant(norm_neuron: Callable[[int, bool], nn.Module], **options: Any) -> Contestant:
            model = build(norm_neuron, device, shape).train(step is training_step)
            return Contestant(lambda inputs: step(model, inputs), check(step, dtype), **options)

        found = {"copy_": Contestant(copy)}
        for name, backend in our_backends(device).items():
            found[name] = contestant(lambda c, pooled, b=backend: ours(c, pooled, b), ours=True)
        compiled = lambda c, pooled: BatchNormThen(c, pooled, plain_loop(V_THRESHOLD))  # noqa: E731
        found["torch.compile"] = contestant(compiled)
        if is_installed("spikingjelly"):  # the other rivals loop over steps in Python, as their rows show
            net = build(spikingjelly, device, shape).train(step is training_step)
            found |= spikingjelly_contestants(net, step, dtype)
        return found

    return make


def expected(step: Step) -> Callable[[Inputs], Tensor]:
    def run(inputs: Inputs) -> Tensor:
        model = build(lambda c, pooled: ours(c, pooled, "reference"), inputs.x.device.type, tuple(inputs.x.shape))
        return copying.copy(step(model.train(step is training_step), inputs))

    return run


def traffic(training: bool) -> Callable[[Inputs], Traffic]:
    """Operations of the convolutions, three times as many with the backward; bytes of their inputs and outputs and of
    batch norm with its neuron, counted as in the operators' cases. Weights are left out."""

    def count(inputs: Inputs) -> Traffic:
        T, B, channels, size, _ = inputs.x.shape
        moved = operations = 0
        for layer in LAYOUT if size >= 16 else SMALL_LAYOUT:
            if isinstance(layer, str):
                size //= 2
                continue
            values, before = T * B * layer * size**2, T * B * channels * size**2
            operations += values * channels * 18 * (3 if training else 1)
            conv, norm = before + values, 2 * values
            moved += inputs.dtype.itemsize * (3 * conv + 4 * norm if training else conv + norm)
            channels = layer
        return Traffic(moved, operations)

    return count


def targets(device: str, dtype: torch.dtype) -> tuple[Target, ...]:
    return () if device == "cpu" else (Target("best rival", 1 / 1.4), Target("best rival", 0.7, "peak memory"))


CASES = [
    Case(
        "vgg_snn",
        name,
        (10, 1, 2, 48, 48),
        inputs,
        contestants(step),
        expected(step),
        traffic(step is training_step),
        yardstick="tmkt native",
        cuda_shape=(10, 120, 2, 48, 48),
        cuda_dtypes=HALVES[:2],
        targets=targets if step is training_step else lambda device, dtype: (),
        small=(4, 2, 2, 8, 8),
        model=True,
        rank=rank,
    )
    for name, step, rank in (("training step", training_step, 2), ("inference", inference, 3))
]
