"""What the backbones are made of. Layers of torch see the steps as a larger batch; ours see [T, B, ...]."""

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
    """UserError where frames of `size` (width, height) are smaller than `least` pixels; `why` begins its message."""
    if min(size) < least:
        raise UserError(
            f"data.size: {why} need frames of at least {least}x{least}, "
            f"got {size[0]}x{size[1]}; choose a larger size or a smaller model"
        )


def pixels_left(size: tuple[int, int], stride: int) -> int:
    """Pixels of a frame after halvings of width and height by `stride` (a power of 2) in all, each rounded up."""
    return -(-size[0] // stride) * -(-size[1] // stride)


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the frame's size but for its stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)


def conv_norm(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> PerStep:
    """Convolution and batch normalisation without neurons: what is added to a shortcut of currents."""
    return PerStep(conv(in_channels, out_channels, kernel, stride, bias), nn.BatchNorm2d(out_channels))


def max_pool() -> PerStep:
    """3x3 maximum with stride 2, of spikes: any among the nine. Sizes are halved, rounded up."""
    return PerStep(nn.MaxPool2d(3, stride=2, padding=1))


class ConvLIF(nn.Module):
    """Convolution, batch normalisation over steps and samples, spiking neurons.

    x_seq [T, B, C, H, W] -> spikes, or (spikes, membrane potential before reset) with return_v. With pool=2, spikes are
    averaged over 2x2 pixels, and an odd last row or column is left out. Without a bias, unless asked for: batch
    normalisation subtracts it again.
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
        # All in one operator; a checkpoint has the keys of nn.BatchNorm2d.
        self.bn = BatchNormLIF2d(out_channels, **neuron, return_v=return_v, pool=pool)

    def forward(self, x_seq: Tensor) -> Any:
        return self.bn(per_step(self.conv, x_seq))


def firing_current(neuron: Neuron) -> float:
    """The current that takes a neuron from 0 to its threshold in one step: v_threshold, times tau if input decays."""
    defaults = {"v_threshold": 1.0, "tau": 2.0, "decay_input": True}  # of tmkt_kernels.nn.LIF
    threshold, tau, decay_input = (neuron.get(name, default) for name, default in defaults.items())
    return float(threshold * tau if decay_input else threshold)


def begin_at(weight: float, layer: nn.Module) -> nn.Module:
    """The layer, the scale of its batch norm set to `weight`.

    tdBN (Zheng et al., AAAI 2021, arXiv 2011.05280) multiplies a scale that begins at 1 by alpha times the
    threshold of neurons whose input does not decay; here that product, with `firing_current`, is the scale.
    """
    for module in layer.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.weight, weight)
    return layer


def one_of(key: str, value: str, known: dict[str, Any]) -> Any:
    """known[value], or a UserError that names the option and what it may be."""
    if value not in known:
        raise UserError(f"model.options.{key}: expected one of {', '.join(known)}; got {value!r}")
    return known[value]
