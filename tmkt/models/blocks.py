"""Building blocks of the backbones. torch's layers treat steps as a larger batch; ours take [T, B, ...]."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tmkt_kernels.nn import BatchNormLIF2d, PerStep

from ..errors import UserError

Neuron = dict[str, Any]
"""Keywords of `tmkt_kernels.nn.LIF`."""


def per_step(layer: Callable[[Tensor], Any], x_seq: Tensor) -> Tensor:
    """Apply a layer without memory of its own to each step: x_seq [T, B, ...] -> [T, B, ...]."""
    out: Tensor = layer(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
    return out


def require_size(size: tuple[int, int], least: int, why: str) -> None:
    """Raise UserError if frames of `size` (width, height) are smaller than `least` pixels; `why` begins its message."""
    if min(size) < least:
        raise UserError(
            f"data.size: {why} need frames of at least {least}x{least}, "
            f"got {size[0]}x{size[1]}; choose a larger size or a smaller model"
        )


def pixels_left(size: tuple[int, int], stride: int) -> int:
    """Return the pixels of a frame after `stride` (a power of 2) has halved width and height, each rounded up."""
    return -(-size[0] // stride) * -(-size[1] // stride)


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Make a convolution that keeps the frame's size, apart from its stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)


def conv_norm(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> PerStep:
    """Make a convolution and batch normalisation without neurons, to be added to a shortcut of currents."""
    return PerStep(conv(in_channels, out_channels, kernel, stride, bias), nn.BatchNorm2d(out_channels))


def max_pool() -> PerStep:
    """Make a 3x3 max pooling of spikes (any of the nine) with stride 2. Sizes are halved, rounded up."""
    return PerStep(nn.MaxPool2d(3, stride=2, padding=1))


class ConvLIF(nn.Module):
    """Convolution, batch normalisation over steps and samples, spiking neurons.

    x_seq [T, B, C, H, W] -> spikes, or (spikes, membrane potential before reset) with return_v. With pool=2, spikes are
    averaged over 2x2 pixels, and an odd last row or column is left out. By default there is no bias, because batch
    normalisation would subtract it again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        neuron: Neuron,
        kernel: int = 3,
        stride: int = 1,
        bias: bool = False,
        return_v: bool = False,
        pool: int = 1,
    ) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel, stride, bias)
        # One operator; a checkpoint has the keys of nn.BatchNorm2d.
        self.bn = BatchNormLIF2d(out_channels, **neuron, return_v=return_v, pool=pool)

    def forward(self, x_seq: Tensor) -> Any:
        return self.bn(per_step(self.conv, x_seq))


def firing_current(neuron: Neuron) -> float:
    """Return the current that fires a neuron from 0 in one step: v_threshold, times tau if input decays."""
    defaults = {"v_threshold": 1.0, "tau": 2.0, "decay_input": True}  # of tmkt_kernels.nn.LIF
    threshold, tau, decay_input = (neuron.get(name, default) for name, default in defaults.items())
    return float(threshold * tau if decay_input else threshold)


def begin_at(weight: float, layer: nn.Module) -> nn.Module:
    """Set the scale of the layer's batch norm to `weight`, and return the layer.

    tdBN (Zheng et al., AAAI 2021, arXiv 2011.05280) multiplies a scale that begins at 1 by alpha times the threshold of
    neurons whose input does not decay. Here the scale is that product, with `firing_current` for the threshold.
    """
    for module in layer.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.weight, weight)
    return layer


def one_of(key: str, value: str, known: dict[str, Any]) -> Any:
    """Return known[value], or raise a UserError that names the option and its possible values."""
    if value not in known:
        raise UserError(f"model.options.{key}: expected one of {', '.join(known)}; got {value!r}")
    return known[value]
