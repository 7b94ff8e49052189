"""Modes of a network for the length of a block: evaluation, or other running statistics of its batch norms."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tmkt_kernels.nn import BatchNormLIF2d


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


@contextmanager
def domain_statistics(model: nn.Module, is_event: Tensor) -> Iterator[None]:
    """Within the block, batch norms in training mode normalise image steps and event steps apart.

    is_event [T, B] of 0 and 1. Each domain has the mean and variance of its own steps in the batch; scale and shift
    are shared (domain-specific batch normalisation, arXiv 1906.03950, with one affine map). Running statistics stay.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    try:
        for layer in layers:
            vars(layer)["forward"] = partial(_normalised_apart, layer, is_event.bool())
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _normalised_apart(layer: nn.modules.batchnorm._BatchNorm, is_event: Tensor, x: Tensor) -> Any:
    """Apply a batch norm with statistics of each domain to x [T, B, C, ...], or [T B, C, ...] if it has no neurons."""
    if isinstance(layer, BatchNormLIF2d):
        return layer.lif()(_normal_apart(layer, is_event, x.flatten(0, 1)).view(x.shape))
    return _normal_apart(layer, is_event, x)


def _normal_apart(layer: nn.modules.batchnorm._BatchNorm, is_event: Tensor, x: Tensor) -> Tensor:
    """Normalise x [T B, C, ...] by the statistics of each domain, at least in float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    share = torch.stack([~is_event.flatten(), is_event.flatten()], dim=1).to(dtype)  # [T B, 2]
    share_of_domain = share / share.sum(0).clamp_min(1)

    def by_domain(values: Tensor) -> Tensor:
        """Values [T B, C, ...] -> mean over the steps and pixels of each step's domain, [T B, C, 1, ...]."""
        means = share @ (share_of_domain.mT @ values.flatten(2).mean(2))
        return means.view(*means.shape, *[1] * (values.dim() - 2))

    with torch.autocast(x.device.type, enabled=False):
        steps = x.to(share.dtype)
        centred = steps - by_domain(steps)
        normal = centred * torch.rsqrt(by_domain(centred.square()) + layer.eps)
        if layer.affine:
            shape = (1, -1, *[1] * (x.dim() - 2))
            normal = torch.addcmul(layer.bias.view(shape), normal, layer.weight.view(shape))
    return normal.to(x.dtype)
