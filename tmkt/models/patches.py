"""Patches of the spiking transformers: four convolutions, the last of which pool."""

from torch import nn

from ..errors import UserError
from .blocks import ConvLIF, Neuron, max_pool, require_size

PATCH_SIZES = (1, 2, 4, 8, 16)


def patch_stages(in_channels: int, dim: int, patch_size: int, neuron: Neuron, stages: int) -> nn.Sequential:
    """Make the first `stages` of four conv-BN-LIF of dim / 8, dim / 4, dim / 2 and dim channels; see `pools`."""
    layers: list[nn.Module] = []
    for stage, channels in enumerate((dim // 8, dim // 4, dim // 2, dim)[:stages]):
        layers.append(ConvLIF(in_channels, channels, neuron))
        if pools(stage, patch_size):
            layers.append(max_pool())
        in_channels = channels
    return nn.Sequential(*layers)


def pools(stage: int, patch_size: int) -> bool:
    """Return whether pooling follows a stage, as it does after the last log2(patch_size) of the four."""
    return stage >= 4 - PATCH_SIZES.index(patch_size)


def require_patches(size: tuple[int, int], dim: int, patch_size: int, divisor: int) -> None:
    """Raise UserError if the options of a transformer do not fit each other or the frames."""
    if patch_size not in PATCH_SIZES:
        raise UserError(f"model.options.patch_size: expected one of {PATCH_SIZES}, got {patch_size}")
    if dim % divisor:
        raise UserError(f"model.options.dim: expected a multiple of {divisor}, got {dim}")
    require_size(size, patch_size, f"patches of {patch_size}x{patch_size}")
