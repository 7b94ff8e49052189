"""Outputs of a network's layers during a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tmkt_kernels.nn import SPIKING_LAYERS

from .blocks import ConvLIF, per_step
from .modes import evaluation_mode
from .registry import SpikingClassifier


def layer_names(model: nn.Module, kinds: tuple[type[nn.Module], ...] = SPIKING_LAYERS) -> dict[nn.Module, str]:
    """Return the modules of the given types and their names; those of the backbone without its prefix."""
    return {m: name.removeprefix("backbone.") for name, m in model.named_modules() if isinstance(m, kinds)}


def layer_titles(model: nn.Module) -> dict[str, str]:
    """Return name of each spiking layer -> readable title, such as "layer 1: conv 2→16 + LIF"."""
    full_names = {module: name for name, module in model.named_modules()}
    titles = {}
    for number, (layer, name) in enumerate(layer_names(model).items(), 1):
        title = type(layer).__name__.removeprefix("BatchNorm").removesuffix("1d").removesuffix("2d")
        block = model.get_submodule(full_names[layer].rpartition(".")[0])
        if isinstance(block, ConvLIF):
            title = f"conv {block.conv.in_channels}→{block.conv.out_channels} + {title}"
        titles[name] = f"layer {number}: {title}"
    return titles


@contextmanager
def recorded_spikes(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, every forward pass fills this dictionary: spiking layer's name -> spikes [T, B, ...].

    Spikes are those before pooling. For a layer that pools them, a hook pools instead, with equal outputs.
    """
    spikes: dict[str, Tensor] = {}
    names = layer_names(model)
    pooling: list[Any] = [layer for layer in names if getattr(layer, "pool", 1) == 2]

    def keep(layer: nn.Module, inputs: Any, output: Any) -> Any:
        fired, *others = output if isinstance(output, tuple) else (output,)
        spikes[names[layer]] = fired.detach()
        if layer not in pooling:
            return None
        pooled = per_step(nn.AvgPool2d(2), fired)
        return (pooled, *others) if others else pooled

    handles = [layer.register_forward_hook(keep) for layer in names]
    try:
        for layer in pooling:
            layer.pool = 1
        yield spikes
    finally:
        for layer in pooling:
            layer.pool = 2
        for handle in handles:
            handle.remove()


def spikes_of(model: SpikingClassifier, x_seq: Tensor) -> dict[str, Tensor]:
    """Return spikes [T, B, ...] of every spiking layer for x_seq [T, B, C, H, W], in evaluation mode."""
    with evaluation_mode(model), recorded_spikes(model) as spikes:
        model(x_seq)
    return spikes


def firing_rates(model: SpikingClassifier, x_seq: Tensor) -> dict[str, float]:
    """Return the share of neurons that fire in a step, mean over steps and samples, per spiking layer."""
    return {name: float(spikes.float().mean()) for name, spikes in spikes_of(model, x_seq).items()}
