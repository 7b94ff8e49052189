"""Spiking backbones with one classifier head per stream."""

from . import resnet, resnet19, scnn, small, spike_driven, spikformer, vgg
from .registry import SpikingClassifier, create_model, model_names, register_model

__all__ = [
    "SpikingClassifier",
    "create_model",
    "model_names",
    "register_model",
    "resnet",
    "resnet19",
    "scnn",
    "small",
    "spike_driven",
    "spikformer",
    "vgg",
]
