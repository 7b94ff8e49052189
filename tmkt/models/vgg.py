"""VGG-SNN, the convolutional backbone of TET, KT and TMKT."""

from collections.abc import Sequence

from torch import Tensor, nn

from tmkt_kernels.nn import PerStep

from .blocks import POOL, ConvLIF, Neuron, require_size
from .registry import register_model


class ConvBackbone(nn.Module):
    """A chain of ConvLIF and 2x2 average pooling, written as a layout such as (64, 128, "pool", 256).

    x_seq [T, B, C, H, W] -> (spikes [T, B, S] after the last pooling, membrane potential [T, B, D] of the last
    spiking layer, before its reset and before pooling).

    Raises:
        UserError: the frames are smaller than one pixel after the poolings.
    """

    def __init__(self, layout: Sequence[int | str], in_channels: int, size: tuple[int, int], neuron: Neuron) -> None:
        super().__init__()
        poolings = layout.count(POOL)
        require_size(size, 2**poolings, f"{poolings} poolings")
        width, height = size
        last_spiking = max(i for i, layer in enumerate(layout) if layer != POOL)
        layers: list[nn.Module] = []
        for i, layer in enumerate(layout):
            if isinstance(layer, str):
                layers.append(PerStep(nn.AvgPool2d(2)))  # an odd last row or column is left out
                width, height = width // 2, height // 2
                continue
            layers.append(ConvLIF(in_channels, layer, neuron, return_v=i == last_spiking))
            in_channels = layer
            if i == last_spiking:
                self.membrane_features = layer * width * height
        self.spike_features = in_channels * width * height
        self.before = nn.Sequential(*layers[:last_spiking])
        self.last = layers[last_spiking]
        self.after = nn.Sequential(*layers[last_spiking + 1 :])

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.last(self.before(x_seq))
        return self.after(spikes).flatten(2), v_seq.flatten(2)


@register_model
def vgg_snn(in_channels: int, size: tuple[int, int], neuron: Neuron) -> nn.Module:
    """VGG-SNN (Deng et al., ICLR 2022, arXiv 2202.11946), at least 16x16; 512*3*3 spikes at 48x48."""
    layout = (64, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
    return ConvBackbone(layout, in_channels, size, neuron)
