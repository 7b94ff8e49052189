"""SpikingJelly's batch norms beside accelerated neurons: statistics, layouts, synchronisation."""

import copy

import pytest
import torch
from torch import nn

import tmkt_kernels as tk

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly_nets import IMAGES, csnn, sequence, steps

from tmkt_kernels.nn import convert_sync_batchnorm


def test_running_statistics_and_momentum(compare_training):
    """momentum=None averages all batches; without running statistics, evaluation too uses those of the batch."""
    net = csnn(node=lambda **k: neuron.IFNode(v_threshold=0.5, **k))
    net[1] = layer.BatchNorm2d(8, momentum=None, step_mode="m")
    net[5] = layer.BatchNorm2d(8, affine=False, track_running_stats=False, step_mode="m")
    compare_training(net, sequence, IMAGES, steps=10, fused=2)
    assert net[1].num_batches_tracked == 10


def test_batch_norm_refuses_as_before():
    net = nn.Sequential(layer.BatchNorm2d(3, step_mode="m"), neuron.IFNode(step_mode="m"))
    tk.accelerate(net)
    with pytest.raises((RuntimeError, ValueError), match=r"running_mean|channels|shape"):
        net(torch.rand(2, 2, 4, 5, 5))
    with pytest.raises(ValueError, match="expected x with shape"):
        net(torch.rand(2, 2, 3))


@pytest.mark.parametrize(
    ("norm", "step_mode", "shape"),
    [(nn.BatchNorm1d(5), "m", (6, 5, 7)), (layer.BatchNorm2d(5, step_mode="m"), "s", (3, 4, 5, 6, 6))],
)
def test_channels_in_another_place_are_normalised_where_they_are(norm, step_mode, shape):
    net = nn.Sequential(norm, neuron.IFNode(step_mode=step_mode))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1
    expected = sequence(net, x)
    assert len(tk.accelerate(net).fused) == 1
    net[0].reset_running_stats()
    assert torch.equal(sequence(net, x), expected)


def test_other_batch_norms_put_in_later():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), neuron.IFNode()).eval()
    expected = sequence(net, IMAGES[0])
    tk.accelerate(net)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert torch.equal(sequence(converted, IMAGES[0]), expected)


@pytest.mark.parametrize(
    "make", [layer.BatchNorm2d, lambda c, **k: layer.ThresholdDependentBatchNorm2d(1.0, 0.5, c)], ids=["plain", "tdBN"]
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [3, 8])
def test_synchronised_batch_norm_keeps_its_channels(batch, training, make):
    """In multi-step mode channels are dimension 2, whatever the batch; as many samples as channels raise no error."""
    norm = nn.Sequential(make(8, step_mode="m")).train(training)
    torch.manual_seed(1)
    norm[0].running_mean.uniform_(), norm[0].weight.data.uniform_()
    converted = convert_sync_batchnorm(copy.deepcopy(norm))
    x = torch.randn(4, batch, 8, 5, 5)
    torch.testing.assert_close(converted(x), norm(x))
    torch.testing.assert_close(converted.state_dict(), norm.state_dict())
    with pytest.raises((ValueError, AssertionError)):
        converted(x[0])


def test_synchronised_in_single_step_mode_and_back():
    net = csnn().eval()
    converted = convert_sync_batchnorm(copy.deepcopy(net))
    for n in (net, converted):
        functional.set_step_mode(n, "s")
    assert torch.equal(steps(converted, IMAGES), steps(net, IMAGES))
    for n in (net, converted):
        functional.set_step_mode(n, "m")
    assert torch.equal(sequence(convert_sync_batchnorm(converted), IMAGES), sequence(net, IMAGES))


def test_a_batch_norm_that_does_more_is_not_synchronised():
    """Its forward would be lost, so the model stays unchanged."""
    net = nn.Sequential(layer.BatchNorm2d(3), nn.Sequential(layer.TemporalEffectiveBatchNorm2d(4, 3)))
    with pytest.raises(TypeError, match=r"1\.0: TemporalEffectiveBatchNorm2d has a forward of its own"):
        convert_sync_batchnorm(net)
    assert type(net[0]) is layer.BatchNorm2d


def test_a_batch_norm_with_two_names_is_synchronised_under_both():
    norm = nn.BatchNorm2d(3)
    net = convert_sync_batchnorm(nn.ModuleDict({"a": norm, "b": norm}))
    assert [type(m).__name__ for m in net._modules.values()] == ["SyncBatchNorm"] * 2
