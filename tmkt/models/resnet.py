"""Spiking ResNet-18, in three versions with different values on the shortcuts:

    sew_resnet18     spikes: Fang et al., NeurIPS 2021, arXiv 2102.04159
    ms_resnet18      currents: Hu et al., IEEE TNNLS 2024, arXiv 2112.08954
    preact_resnet18  currents, batch norm and neurons before each convolution: KT, AAAI 2024, arXiv 2303.13077

x_seq [T, B, C, H, W] -> (spikes [T, B, S] averaged over space, membrane potential [T, B, D] of the last spiking layer).
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from tmkt_kernels.nn import LIF, BatchNormLIF2d, PerStep

from .blocks import (
    ConvLIF,
    Neuron,
    begin_at,
    conv,
    conv_norm,
    firing_current,
    max_pool,
    one_of,
    per_step,
    pixels_left,
    require_size,
)
from .registry import register_model

Connect = Callable[[Tensor, Tensor], Tensor]


def iand(residual: Tensor, shortcut: Tensor) -> Tensor:
    """The shortcut's spikes where the residual is silent."""
    return (1 - residual) * shortcut


CONNECT: dict[str, Connect] = {"add": operator.add, "and": operator.mul, "iand": iand}


class Stem(NamedTuple):
    """Kernel and stride of the first convolution, whether pooling follows it, and the stride of the first stage."""

    kernel: int
    stride: int
    pool: bool
    first_stage: int

    @property
    def total(self) -> int:
        """Stride of the whole network."""
        return self.stride * (2 if self.pool else 1) * self.first_stage * 8


CIFAR = Stem(3, 1, False, 1)
STEMS = {"cifar": CIFAR, "imagenet": Stem(7, 2, True, 1)}
MS_STEMS = {"cifar": CIFAR, "imagenet": Stem(7, 2, False, 2)}  # strides instead of pooling

Shape = tuple[int, int, int]


def block_shapes(widths: tuple[int, ...], depths: tuple[int, ...], first_stride: int) -> list[Shape]:
    """Return (channels in, channels out, stride) of each block; every stage but the first halves the frame."""
    shapes = []
    before = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            stride = 1 if block else (2 if stage else first_stride)
            shapes.append((before, width, stride))
            before = width
    return shapes


def four_stages(width: int, first_stride: int) -> list[Shape]:
    """ResNet-18: 2 blocks per stage, with the width doubled from stage to stage."""
    return block_shapes((width, 2 * width, 4 * width, 8 * width), (2, 2, 2, 2), first_stride)


def changes_shape(shape: Shape) -> bool:
    """Return whether the shortcut needs a 1x1 convolution."""
    return shape[2] != 1 or shape[0] != shape[1]


class SEWBlock(nn.Module):
    """g(LIF(BN(conv(LIF(BN(conv(s)))))), s) on spikes s; g adds, which gives counts, or is a gate ("and", "iand")."""

    def __init__(self, shape: Shape, neuron: Neuron, connect: Connect, return_v: bool = False) -> None:
        super().__init__()
        in_channels, channels, stride = shape
        self.conv1 = ConvLIF(in_channels, channels, neuron, stride=stride)
        self.conv2 = ConvLIF(channels, channels, neuron, return_v=return_v)
        self.downsample = ConvLIF(in_channels, channels, neuron, 1, stride) if changes_shape(shape) else nn.Identity()
        self.connect, self.return_v = connect, return_v

    def forward(self, x_seq: Tensor) -> Any:
        shortcut = self.downsample(x_seq)
        if not self.return_v:
            return self.connect(self.conv2(self.conv1(x_seq)), shortcut)
        spikes, v_seq = self.conv2(self.conv1(x_seq))
        return self.connect(spikes, shortcut), v_seq


class SEWResNet(nn.Module):
    """A stem of conv-BN-LIF, SEW blocks, average over space."""

    def __init__(
        self, in_channels: int, size: tuple[int, int], neuron: Neuron, stem: Stem, width: int, connect: Connect
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvLIF(in_channels, width, neuron, stem.kernel, stem.stride))
        if stem.pool:
            self.stem.append(max_pool())
        *shapes, last = four_stages(width, stem.first_stage)
        self.blocks = nn.Sequential(*(SEWBlock(shape, neuron, connect) for shape in shapes))
        self.last = SEWBlock(last, neuron, connect, return_v=True)
        self.spike_features = last[1]
        self.membrane_features = last[1] * pixels_left(size, stem.total)

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.last(self.blocks(self.stem(x_seq)))
        return spikes.mean((3, 4)), v_seq.flatten(2)


class MSBlock(nn.Module):
    """BN(conv(LIF(BN(conv(LIF(x)))))) + x on currents x. The shortcut passes no neuron."""

    def __init__(self, shape: Shape, neuron: Neuron) -> None:
        super().__init__()
        in_channels, channels, stride = shape
        self.lif = LIF(**neuron)
        self.conv1 = begin_at(firing_current(neuron), ConvLIF(in_channels, channels, neuron, stride=stride))
        self.conv2 = begin_at(0.0, conv_norm(channels, channels))  # a block begins as its shortcut, as the authors'
        self.downsample: nn.Module = nn.Identity()
        if changes_shape(shape):
            self.downsample = begin_at(firing_current(neuron), conv_norm(in_channels, channels, 1, stride))

    def forward(self, x_seq: Tensor) -> Tensor:
        currents: Tensor = self.conv2(self.conv1(self.lif(x_seq))) + self.downsample(x_seq)
        return currents


class PreactBlock(nn.Module):
    """conv(LIF(BN(conv(LIF(BN(x)))))) + x on currents x; the shortcut to another shape is conv(LIF(BN(x)))."""

    def __init__(self, shape: Shape, neuron: Neuron) -> None:
        super().__init__()
        in_channels, channels, stride = shape
        self.bn1 = BatchNormLIF2d(in_channels, **neuron)
        self.conv1 = ConvLIF(in_channels, channels, neuron, stride=stride)
        self.conv2 = conv(channels, channels)
        self.downsample: nn.Module = nn.Identity()
        if changes_shape(shape):
            self.downsample = nn.Sequential(
                BatchNormLIF2d(in_channels, **neuron), PerStep(conv(in_channels, channels, 1, stride))
            )

    def forward(self, x_seq: Tensor) -> Tensor:
        currents: Tensor = per_step(self.conv2, self.conv1(self.bn1(x_seq))) + self.downsample(x_seq)
        return currents


class CurrentResNet(nn.Module):
    """A stem without neurons, blocks on currents, `fire`: neurons that read them (return_v), average over space."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], fire: nn.Module, channels: int, pixels: int) -> None:
        super().__init__()
        self.stem, self.blocks, self.fire = stem, nn.Sequential(*blocks), fire
        self.spike_features, self.membrane_features = channels, channels * pixels

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.fire(self.blocks(self.stem(x_seq)))
        return spikes.mean((3, 4)), v_seq.flatten(2)


@register_model
def sew_resnet18(
    in_channels: int,
    size: tuple[int, int],
    neuron: Neuron,
    stem: str = "cifar",
    width: int = 64,
    connect: str = "add",
) -> nn.Module:
    """SEW ResNet-18. stem: "cifar" (3x3) or "imagenet" (7x7 with stride 2, pooling); connect: "add", "and", "iand"."""
    begin = one_of("stem", stem, STEMS)
    require_size(size, begin.total, "its strides")
    return SEWResNet(in_channels, size, neuron, begin, width, one_of("connect", connect, CONNECT))


@register_model
def ms_resnet18(
    in_channels: int, size: tuple[int, int], neuron: Neuron, stem: str = "cifar", width: int = 64
) -> nn.Module:
    """MS-ResNet-18. stem: "cifar" (3x3) or "imagenet" (7x7 with stride 2, and a stride of 2 in the first stage)."""
    begin = one_of("stem", stem, MS_STEMS)
    require_size(size, begin.total, "its strides")
    entry = begin_at(firing_current(neuron), conv_norm(in_channels, width, begin.kernel, begin.stride))
    blocks: list[nn.Module] = [MSBlock(shape, neuron) for shape in four_stages(width, begin.first_stage)]
    return CurrentResNet(entry, blocks, LIF(**neuron, return_v=True), 8 * width, pixels_left(size, begin.total))


@register_model
def preact_resnet18(in_channels: int, size: tuple[int, int], neuron: Neuron, width: int = 64) -> nn.Module:
    """KT's ResNet-18, at least 8x8. KT's classifier reads the last batch norm, ours the neurons after it."""
    require_size(size, CIFAR.total, "its strides")
    blocks: list[nn.Module] = [PreactBlock(shape, neuron) for shape in four_stages(width, 1)]
    fire = BatchNormLIF2d(8 * width, **neuron, return_v=True)
    return CurrentResNet(PerStep(conv(in_channels, width)), blocks, fire, 8 * width, pixels_left(size, CIFAR.total))
