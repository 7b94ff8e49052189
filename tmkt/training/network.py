"""The network of a configuration, and its device."""

from typing import Any

import torch

import tmkt_kernels

from ..config import Config
from ..errors import UserError
from ..models import SpikingClassifier, create_model


def device_for(config: Config) -> torch.device:
    """Return a GPU if there is one and train.device allows it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and config.train.device == "auto" else "cpu")


def build_model(config: Config, num_classes: int) -> SpikingClassifier:
    """Build the network of a configuration, with weights drawn from the seed."""
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
    """Have tmkt_kernels check the neuron's settings before data is loaded; its message names the key."""
    try:
        tmkt_kernels.lif(torch.zeros(1, 1, device=device), **neuron)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"model.neuron: {error}") from error
