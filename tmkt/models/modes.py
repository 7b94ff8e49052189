"""Modes of a network for the length of a block: evaluation, or other running statistics of its batch norms."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block, no gradients, and batch norms use their running statistics."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _momentum(model: nn.Module, value: float) -> Iterator[None]:
    """Within the block, the momentum of every batch norm is `value`."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = value
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def frozen_running_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block, batch norms normalise by their batch but keep their running statistics."""
    return _momentum(model, 0.0)


def fit_running_statistics(model: nn.Module, x_seq: Tensor) -> None:
    """Set the running statistics of all batch norms to those of one pass of x_seq; leave the model in training mode."""
    with _momentum(model, 1.0), torch.no_grad():
        model.train()(x_seq)
