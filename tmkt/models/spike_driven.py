"""Spike-driven Transformer: Yao et al., NeurIPS 2023, arXiv 2307.01694. Shortcuts of currents, attention by masks.

Patches stay a small frame, [T, B, D, H, W]; linear layers on them are 1x1 convolutions.
"""

from torch import Tensor, nn

from tmkt_kernels.nn import LIF

from .blocks import ConvLIF, Neuron, conv_norm, max_pool
from .patches import patch_stages, pools, require_patches
from .registry import register_model


class SpikeDrivenBlock(nn.Module):
    """x + attention(x), then x + MLP(x), on currents x. All inputs of linear layers are spikes.

    The attention masks Q by the channels that fire on K * V summed over patches; heads would make no difference to it.
    """

    def __init__(self, dim: int, hidden: int, attention_threshold: float, neuron: Neuron) -> None:
        super().__init__()
        self.lif1 = LIF(**neuron)
        self.qkv = ConvLIF(dim, 3 * dim, neuron, 1)
        self.lif_kv = LIF(**{**neuron, "v_threshold": attention_threshold})
        # The published biases, here and below, although batch norm subtracts them.
        self.project = conv_norm(dim, dim, 1, bias=True)
        self.lif2 = LIF(**neuron)
        self.expand = ConvLIF(dim, hidden, neuron, 1, bias=True)
        self.contract = conv_norm(hidden, dim, 1, bias=True)

    def forward(self, x_seq: Tensor) -> Tensor:
        q, k, v = self.qkv(self.lif1(x_seq)).chunk(3, 2)
        x_seq = x_seq + self.project(q * self.lif_kv((k * v).sum((3, 4), keepdim=True)))
        out: Tensor = x_seq + self.contract(self.expand(self.lif2(x_seq)))
        return out


class SpikeDrivenTransformer(nn.Module):
    """Patch stem that ends in currents, blocks, average over patches, neurons."""

    def __init__(
        self,
        in_channels: int,
        neuron: Neuron,
        depth: int,
        dim: int,
        hidden: int,
        patch_size: int,
        attention_threshold: float,
    ) -> None:
        super().__init__()
        self.patches = patch_stages(in_channels, dim, patch_size, neuron, 3)
        self.patches.append(conv_norm(dim // 2, dim))
        if pools(3, patch_size):
            self.patches.append(max_pool())
        self.lif_position = LIF(**neuron)
        self.position = conv_norm(dim, dim)
        self.blocks = nn.Sequential(*(SpikeDrivenBlock(dim, hidden, attention_threshold, neuron) for _ in range(depth)))
        self.lif = LIF(**neuron, return_v=True)
        self.spike_features = self.membrane_features = dim

    def forward(self, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        x_seq = self.patches(x_seq)
        x_seq = self.blocks(x_seq + self.position(self.lif_position(x_seq)))
        spikes, v_seq = self.lif(x_seq.mean((3, 4)))
        return spikes, v_seq


@register_model
def spike_driven(
    in_channels: int,
    size: tuple[int, int],
    neuron: Neuron,
    depth: int = 2,
    dim: int = 256,
    mlp_ratio: int = 4,
    patch_size: int = 4,
    attention_threshold: float = 0.5,
) -> nn.Module:
    """Spike-driven Transformer depth-dim; the defaults are the network for CIFAR10-DVS."""
    require_patches(size, dim, patch_size, 8)
    return SpikeDrivenTransformer(in_channels, neuron, depth, dim, mlp_ratio * dim, patch_size, attention_threshold)
