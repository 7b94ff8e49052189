"""Layers that keep v, under torch.utils.checkpoint and in training after inference mode."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tmkt_kernels import nn

LAYERS = {
    "LIF": lambda **k: nn.LIF(v_threshold=0.5, **k),
    "Leaky": lambda **k: nn.Leaky(0.8, threshold=0.5, **k),
    "BatchNormLIF1d": lambda **k: nn.BatchNormLIF1d(6, v_threshold=0.5, **k).eval(),
}
layers = pytest.mark.parametrize("name", LAYERS)
reentrant = pytest.mark.parametrize("use_reentrant", [False, True])


@layers
@reentrant
def test_a_stateful_layer_under_checkpoint_is_refused(name, use_reentrant):
    layer = LAYERS[name](stateful=True)
    x = torch.randn(4, 3, 6, requires_grad=True)
    for reset_between in (False, True):
        layer.reset()
        spikes = sum(checkpoint(layer, x, use_reentrant=use_reentrant) for _ in range(2))
        if reset_between:
            layer.reset()
        with pytest.raises(RuntimeError, match="run again in backward"):
            spikes.sum().backward()


@layers
@reentrant
def test_a_block_that_resets_does_not_vouch_for_one_that_does_not(name, use_reentrant):
    """Backward recomputes the later block first, from a v other than the one from which the earlier block began."""
    layer = LAYERS[name](stateful=True)
    x = torch.randn(4, 3, 6, requires_grad=True)

    def later(x):
        layer.reset()
        return layer(x)

    first = checkpoint(layer, x, use_reentrant=use_reentrant)
    spikes = checkpoint(later, first, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match="run again in backward"):
        spikes.sum().backward()


@layers
@reentrant
def test_a_layer_that_is_reset_inside_the_checkpoint_has_the_right_gradient(name, use_reentrant):
    layer = LAYERS[name](stateful=True)
    x = torch.randn(4, 3, 6, requires_grad=True)

    def block(x):
        layer.reset()
        return layer(x[:2]).sum() + layer(x[2:]).sum()

    gradients = []
    for call in (block, lambda x: checkpoint(block, x, use_reentrant=use_reentrant)):
        x.grad = None
        (call(x) + call(2 * x)).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    stateless = LAYERS[name]()
    x.grad = None
    checkpoint(stateless, x, use_reentrant=use_reentrant).sum().backward()
    torch.testing.assert_close(x.grad, torch.autograd.grad(stateless(x).sum(), x)[0])


@layers
def test_training_after_inference_mode(name):
    """The gradient is the same as after a pass without inference mode."""
    x, gradients = torch.randn(4, 3, 6), []
    for without in (torch.inference_mode, torch.no_grad):
        layer, leaf = LAYERS[name](stateful=True), x.clone().requires_grad_()
        with without():
            layer(x)
        gradients += torch.autograd.grad((layer(leaf) * x.cos()).sum(), leaf)
    assert gradients[0].any()
    assert torch.equal(*gradients)
