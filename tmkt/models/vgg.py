"""VGG-SNN, the convolutional backbone of TET, KT and TMKT, and the blocks it is made of."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tmkt_kernels.nn import BatchNormLIF2d

from ..errors import UserError
from .registry import register_model

POOL = "pool"


class ConvLIF(nn.Module):
    """3x3 convolution, batch normalisation over steps and samples, spiking neurons."""

    def __init__(self, in_channels: int, out_channels: int, neuron: dict[str, Any], return_v: bool = False) -> None:
        super().__init__()
        # No bias: batch normalisation subtracts it again.
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        # Both in one operator; a checkpoint has the keys of nn.BatchNorm2d.
        self.bn = BatchNormLIF2d(out_channels, **neuron, return_v=return_v)

    def forward(self, x_seq: Tensor) -> Any:
        return self.bn(self.conv(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2]))


class Pool(nn.Module):
    """2x2 average over space, step by step; an odd last row or column is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.AvgPool2d(2)

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.average(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


class ConvBackbone(nn.Module):
    """A chain of ConvLIF and Pool, written as a layout such as (64, 128, "pool", 256).

    x_seq [T, B, C, H, W] -> (spikes [T, B, S] after the last pooling, membrane potential [T, B, D] of the last
    spiking layer, before its reset and before pooling).

    Raises:
        UserError: the frames are smaller than one pixel after the poolings.
    """

    def __init__(
        self, layout: Sequence[int | str], in_channels: int, size: tuple[int, int], neuron: dict[str, Any]
    ) -> None:
        super().__init__()
        poolings = layout.count(POOL)
        if min(size) < 2**poolings:
            raise UserError(
                f"data.size: {poolings} poolings need frames of at least {2**poolings}x{2**poolings}, "
                f"got {size[0]}x{size[1]}; choose a larger size or a smaller model"
            )
        width, height = size
        last_spiking = max(i for i, layer in enumerate(layout) if layer != POOL)
        layers: list[nn.Module] = []
        for i, layer in enumerate(layout):
            if isinstance(layer, str):
                layers.append(Pool())
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
def vgg_snn(in_channels: int, size: tuple[int, int], neuron: dict[str, Any]) -> nn.Module:
    """VGG-SNN (Deng et al., ICLR 2022, arXiv 2202.11946), at least 16x16; 512*3*3 spikes at 48x48."""
    layout = (64, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
    return ConvBackbone(layout, in_channels, size, neuron)
