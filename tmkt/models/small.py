"""A small convolutional backbone, which trains in minutes on two CPU cores."""

from torch import nn

from .blocks import Neuron
from .registry import register_model
from .vgg import ConvBackbone


@register_model
def small(
    in_channels: int, size: tuple[int, int], neuron: Neuron, channels: tuple[int, ...] = (16, 32, 64)
) -> nn.Module:
    """One conv-BN-LIF and one 2x2 pooling for each entry of `channels`."""
    return ConvBackbone([(width, 2) for width in channels], in_channels, size, neuron)
