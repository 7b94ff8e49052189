"""A configuration's network, and the device that it runs on."""

from typing import Any

import torch

import tmkt_kernels

from ..config import Config
from ..errors import UserError
from ..models import SpikingClassifier, create_model


def device_for(config: Config) -> torch.device:
    """A GPU where there is one and train.device leaves the choice, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and config.train.device == "auto" else "cpu")


def build_model(config: Config, num_classes: int) -> SpikingClassifier:
    """The network of a configuration, its weights drawn from the seed."""
    neuron = config.model.neuron.model_dump()
    _check_neuron(neuron, device_for(config))
    torch.manual_seed(config.seed)
    return create_model(
        config.model.name,
        num_classes=num_classes,
        size=config.data.size,
        heads=config.model.heads,
        neuron=neuron,
        **config.model.options,
    )


def _check_neuron(neuron: dict[str, Any], device: torch.device) -> None:
    """Let tmkt_kernels judge the neuron's settings before data is loaded; its message names the key."""
    try:
        tmkt_kernels.lif(torch.zeros(1, 1, device=device), **neuron)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"model.neuron: {error}") from error
