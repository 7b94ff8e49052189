"""VGG-SNN, the convolutional backbone of TET, KT and TMKT."""

from collections.abc import Sequence

from torch import Tensor, nn

from .blocks import ConvLIF, Neuron, require_size
from .registry import register_model


class ConvBackbone(nn.Module):
    """A chain of ConvLIF, written as pairs (channels, pool), such as ((64, 1), (128, 2)); pool 2: 2x2 average pooling.

    x_seq [T, B, C, H, W] -> (spikes [T, B, S] after the last pooling, membrane potential [T, B, D] of the last
    spiking layer, before its reset and before pooling).

    Raises:
        UserError: the frames are smaller than one pixel after the poolings.
    """

    def __init__(
        self, layout: Sequence[tuple[int, int]], in_channels: int, size: tuple[int, int], neuron: Neuron
    ) -> None:
        super().__init__()
        poolings = sum(pool == 2 for _, pool in layout)
        require_size(size, 2**poolings, f"{poolings} poolings")
        width, height = size
        self.before = nn.Sequential()
        position = 0
        for channels, pool in layout[:-1]:
            self.before.add_module(str(position), ConvLIF(in_channels, channels, neuron, pool=pool))
            position += pool  # poolings count as layers, as in the keys of older checkpoints
            in_channels, width, height = channels, width // pool, height // pool
        channels, pool = layout[-1]
        self.last = ConvLIF(in_channels, channels, neuron, return_v=True, pool=pool)
        self.membrane_features = channels * width * height
        self.spike_features = channels * (width // pool) * (height // pool)

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.last(self.before(x_seq))
        return spikes.flatten(2), v_seq.flatten(2)


@register_model
def vgg_snn(in_channels: int, size: tuple[int, int], neuron: Neuron) -> nn.Module:
    """VGG-SNN (Deng et al., ICLR 2022, arXiv 2202.11946), at least 16x16; 512*3*3 spikes at 48x48."""
    layout = ((64, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2), (512, 1), (512, 2))
    return ConvBackbone(layout, in_channels, size, neuron)
