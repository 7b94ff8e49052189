"""tmkt_kernels.bn_lif with pooling equals torch's pooling of its spikes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from batch_norm_inputs import inputs_of

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.testing import assert_gradient_close


def pooled(x, backend, pool, training=True, return_v=True, **neuron):
    """Return outputs of bn_lif, with spikes pooled in it or after it, and gradients of x, weight, bias and v_init."""
    inputs = inputs_of(x.shape, x.dtype, x.device.type)
    leaves = [t.detach().clone().requires_grad_() for t in (x, inputs["weight"], inputs["bias"], inputs["v_init"])]
    ones = torch.ones_like(inputs["weight"])
    given_statistics = {} if training else {"mean": 0.3 * ones, "var": 2 * ones}
    spikes, *potentials, _, _ = tk.bn_lif(
        *leaves, **neuron, **given_statistics, return_v=return_v, pool=2 if pool else 1, backend=backend
    )
    if not pool:
        spikes = F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, spikes.shape[:2])
    outputs = (spikes, *potentials)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    return outputs, torch.autograd.grad(outputs, leaves, grads)


@pytest.mark.parametrize("mode", [(True, True), (True, False), (False, True)], ids=["training", "alone", "eval"])
@pytest.mark.parametrize(
    "shape",
    [
        (5, 3, 6, 8, 12),
        (3, 2, 5, 7, 9),
        (4, 2, 3, 3, 2),
        (2, 2, 3, 16, 33),
        (3, 2, 2, 7, 47),
        (2, 1, 2, 2, 5),
        (17, 3, 7, 6, 6),
        (16, 5, 20, 3, 3),
        (40, 2, 3, 5, 7),
        (1, 4, 1, 7, 8),
        (10, 3, 20, 12, 12),
        (16, 5, 33, 6, 6),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda dtype: str(dtype)[6:])
def test_pooled_as_by_torch(shape, dtype, mode, target):
    backend, device = target
    x = inputs_of(shape, dtype, device)["x"]
    outputs, grads = pooled(x, backend, True, *mode)
    expected, expected_grads = pooled(x, backend, False, *mode)
    for a, e in zip(outputs, expected, strict=True):
        assert a.dtype == e.dtype
        # The statistics of short planes are added in another order.
        torch.testing.assert_close(a, e, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)
    for a, e in zip(grads, expected_grads, strict=True):
        assert_gradient_close(a, e, dtype)


def test_pooling_of_other_layouts_and_the_reference(target):
    backend, device = target
    x = inputs_of((3, 2, 5, 7, 9), torch.float32, device)["x"]
    expected = pooled(x, backend, True)[0][0]
    last = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    for other in (pooled(last, backend, True), pooled(x, "reference", True)):
        assert (other[0][0] != expected).float().mean() <= 2 / expected.numel()  # a flip moves one average
    layer, plain = nn.BatchNormLIF2d(5, pool=2, backend=backend), nn.BatchNormLIF2d(5, backend=backend)
    spikes = plain.to(device)(x)
    assert torch.equal(layer.to(device)(x), F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (3, 2)))
    assert "pool=2" in repr(layer)
    expected = layer.eval()(x)
    assert torch.equal(nn.convert_sync_batchnorm(copy.deepcopy(layer))(x), expected)
