"""Spiking backbones with one classifier head per stream."""

from . import small, vgg
from .registry import SpikingClassifier, create_model, model_names, register_model

__all__ = ["SpikingClassifier", "create_model", "model_names", "register_model", "small", "vgg"]
