"""The small network for Omniglot -> N-Omniglot, as in the public code of KT (AAAI 2024, arXiv 2303.13077)."""

from torch import Tensor, nn

from tmkt_kernels.nn import LIF, PerStep

from .blocks import Neuron, require_size
from .registry import register_model


class SCNN(nn.Module):
    """15C5-LIF-AP2-40C5-LIF-AP2-300FC-LIF without padding or batch norm. At 28x28 the linear layer has 40*4*4 inputs.

    x_seq [T, B, C, H, W] -> (spikes [T, B, 300], membrane potential [T, B, 300]).
    """

    def __init__(
        self, in_channels: int, size: tuple[int, int], neuron: Neuron, channels: tuple[int, ...], hidden: int
    ) -> None:
        super().__init__()
        width, height = size
        layers: list[nn.Module] = []
        for channel in channels:
            convolution = nn.Conv2d(in_channels, channel, 5, bias=False)
            # Nothing normalises the currents, so they begin at the scale of He's initialisation, as in KT.
            nn.init.kaiming_normal_(convolution.weight)
            layers += [PerStep(convolution), LIF(**neuron), PerStep(nn.AvgPool2d(2))]
            in_channels, width, height = channel, (width - 4) // 2, (height - 4) // 2
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(in_channels * width * height, hidden)
        nn.init.uniform_(self.linear.weight, -0.1, 0.1)
        self.lif = LIF(**neuron, return_v=True)
        self.spike_features = self.membrane_features = hidden

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v_seq = self.lif(self.linear(self.features(x_seq).flatten(2)))
        return spikes, v_seq


@register_model
def scnn(
    in_channels: int,
    size: tuple[int, int],
    neuron: Neuron,
    channels: tuple[int, ...] = (15, 40),
    hidden: int = 300,
) -> nn.Module:
    """A 5x5 convolution and 2x2 pooling for each entry of `channels`, then `hidden` neurons; at least 16x16 for two."""
    least = 1
    for _ in channels:
        least = 2 * least + 4
    require_size(size, least, f"{len(channels)} unpadded convolutions with poolings")
    return SCNN(in_channels, size, neuron, channels, hidden)
