"""Spikformer: Zhou et al., ICLR 2023, arXiv 2209.15425. Shortcuts of spikes, attention (Q K^T) V without a softmax.

Patches stay a small frame, [T, B, D, H, W]; linear layers on them are 1x1 convolutions.
"""

import math
from typing import Any

from torch import Tensor, nn

from tmkt_kernels.nn import LIF

from .blocks import ConvLIF, Neuron, pixels_left
from .patches import patch_stages, require_patches
from .registry import register_model


class SpikingSelfAttention(nn.Module):
    """(Q K^T) V of spikes, head by head; neurons with a threshold of their own, a linear layer, neurons.

    Without a softmax between them, the features can be multiplied first, which makes (D / heads)^2 values per head, not
    patches^2. Counts of spikes are exact in float32 in either order.
    """

    def __init__(self, dim: int, heads: int, scale: float, attention_threshold: float, neuron: Neuron) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.qkv = ConvLIF(dim, 3 * dim, neuron, 1)
        self.lif = LIF(**{**neuron, "v_threshold": attention_threshold})
        self.project = ConvLIF(dim, dim, neuron, 1, bias=True)

    def forward(self, x_seq: Tensor) -> Tensor:
        q, k, v = (part.flatten(3).unflatten(2, (self.heads, -1)) for part in self.qkv(x_seq).chunk(3, 2))
        attended = (v @ k.transpose(-1, -2)) @ q * self.scale  # [T, B, heads, D / heads, tokens]
        out: Tensor = self.project(self.lif(attended.flatten(2, 3).view_as(x_seq)))
        return out


class SpikformerBlock(nn.Module):
    """s + attention(s), then s + MLP(s), on spikes, whose sums are counts."""

    def __init__(self, attention: nn.Module, dim: int, hidden: int, neuron: Neuron, return_v: bool = False) -> None:
        super().__init__()
        self.attention = attention
        # The published biases, here and in `project`, although batch norm subtracts them.
        self.expand = ConvLIF(dim, hidden, neuron, 1, bias=True)
        self.contract = ConvLIF(hidden, dim, neuron, 1, bias=True, return_v=return_v)
        self.return_v = return_v

    def forward(self, x_seq: Tensor) -> Any:
        x_seq = x_seq + self.attention(x_seq)
        if not self.return_v:
            return x_seq + self.contract(self.expand(x_seq))
        spikes, v_seq = self.contract(self.expand(x_seq))
        return x_seq + spikes, v_seq


class Spikformer(nn.Module):
    """Patch stem with a relative position convolution, blocks, average over patches."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        neuron: Neuron,
        depth: int,
        dim: int,
        hidden: int,
        patch_size: int,
        attention: dict[str, Any],
    ) -> None:
        super().__init__()
        self.patches = patch_stages(in_channels, dim, patch_size, neuron, 4)
        self.position = ConvLIF(dim, dim, neuron)
        *blocks, last = (
            SpikformerBlock(
                SpikingSelfAttention(dim, neuron=neuron, **attention), dim, hidden, neuron, return_v=i == depth - 1
            )
            for i in range(depth)
        )
        self.blocks, self.last = nn.Sequential(*blocks), last
        self.spike_features = dim
        self.membrane_features = dim * pixels_left(size, patch_size)

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        x_seq = self.patches(x_seq)
        spikes, v_seq = self.last(self.blocks(x_seq + self.position(x_seq)))
        return spikes.mean((3, 4)), v_seq.flatten(2)


@register_model
def spikformer(
    in_channels: int,
    size: tuple[int, int],
    neuron: Neuron,
    depth: int = 2,
    dim: int = 256,
    num_heads: int = 16,
    mlp_ratio: int = 4,
    patch_size: int = 4,
    scale: float = 0.125,
    attention_threshold: float = 0.5,
) -> nn.Module:
    """Spikformer-depth-dim; the defaults are the network for CIFAR10-DVS, except for its patches of 16."""
    require_patches(size, dim, patch_size, math.lcm(8, num_heads))
    attention = {"heads": num_heads, "scale": scale, "attention_threshold": attention_threshold}
    return Spikformer(in_channels, size, neuron, depth, dim, mlp_ratio * dim, patch_size, attention)
