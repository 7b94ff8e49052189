"""ResNet-19 of tdBN: Zheng et al., AAAI 2021, arXiv 2011.05280. Neurons fire on the sum of residual and shortcut."""

from torch import Tensor, nn

from tmkt_kernels.nn import LIF

from .blocks import ConvLIF, Neuron, begin_at, conv_norm, firing_current, require_size
from .registry import register_model
from .resnet import Shape, block_shapes, changes_shape


class TDBlock(nn.Module):
    """LIF(BN(conv(LIF(BN(conv(s))))) + s) on spikes s. Either part of the sum begins at threshold / sqrt(2)."""

    def __init__(self, shape: Shape, neuron: Neuron) -> None:
        super().__init__()
        in_channels, channels, stride = shape
        half = firing_current(neuron) * 0.5**0.5
        self.conv1 = begin_at(firing_current(neuron), ConvLIF(in_channels, channels, neuron, stride=stride))
        self.conv2 = begin_at(half, conv_norm(channels, channels))
        self.downsample: nn.Module = nn.Identity()
        if changes_shape(shape):
            self.downsample = begin_at(half, conv_norm(in_channels, channels, 1, stride))
        self.lif = LIF(**neuron)

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes: Tensor = self.lif(self.conv2(self.conv1(x_seq)) + self.downsample(x_seq))
        return spikes


class ResNet19(nn.Module):
    """Stem, 3 + 3 + 2 blocks of doubling width, average over space, 2 * width linear spiking neurons."""

    def __init__(self, in_channels: int, neuron: Neuron, width: int) -> None:
        super().__init__()
        self.stem = begin_at(firing_current(neuron), ConvLIF(in_channels, width, neuron))
        shapes = block_shapes((width, 2 * width, 4 * width), (3, 3, 2), 1)
        self.blocks = nn.Sequential(*(TDBlock(shape, neuron) for shape in shapes))
        self.linear = nn.Linear(4 * width, 2 * width)
        self.lif = LIF(**neuron, return_v=True)
        self.spike_features = self.membrane_features = 2 * width

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.lif(self.linear(self.blocks(self.stem(x_seq)).mean((3, 4))))
        return spikes, v_seq


@register_model
def resnet19(in_channels: int, size: tuple[int, int], neuron: Neuron, width: int = 128) -> nn.Module:
    """ResNet-19 of tdBN, at least 4x4."""
    require_size(size, 4, "its strides")
    return ResNet19(in_channels, neuron, width)
