"""The layers on tmkt_kernels.bn_lif against torch's batch norm, and conversions to them."""

import copy
import pickle

import pytest
import torch
from batch_norm_inputs import inputs_of

import tmkt_kernels as tk
from tmkt_kernels import nn
from tmkt_kernels.testing import assert_gradient_close, assert_spikes_equal


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast(dtype, target):
    """The convolution gives half input; statistics, parameters and their gradients stay in float32."""
    backend, device = target
    conv, layer = torch.nn.Conv2d(3, 4, 3).to(device), nn.BatchNormLIF2d(4, backend=backend).to(device)
    x = torch.randn(6, 3, 7, 7, device=device)
    wide = copy.deepcopy(layer)
    with torch.autocast(device, dtype):
        current = conv(x).unflatten(0, (3, 2))
        current.retain_grad()
        spikes = layer(current)
        spikes.sum().backward()
    assert spikes.dtype == dtype
    assert {t.dtype for t in (layer.running_mean, layer.weight.grad, layer.bias.grad)} == {torch.float32}
    leaf = current.detach().float().requires_grad_()
    wide(leaf).sum().backward()
    assert_gradient_close(current.grad, leaf.grad, dtype)
    for name, parameter in wide.named_parameters():
        torch.testing.assert_close(layer.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("shape", [(4, 3, 6, 5, 5), (4, 3, 6), (4, 3, 6, 7)], ids=["2d", "1d", "1d-length"])
def test_layer_follows_torchs(shape, momentum):
    ours = (nn.BatchNormLIF2d if len(shape) == 5 else nn.BatchNormLIF1d)(6, momentum=momentum)
    theirs = (torch.nn.BatchNorm2d if len(shape) == 5 else torch.nn.BatchNorm1d)(6, momentum=momentum)
    theirs.load_state_dict(ours.state_dict())
    for seed in range(3):
        x = inputs_of(shape, torch.float32, seed=seed)["x"]
        expected = tk.lif(theirs(x.flatten(0, 1)).view_as(x))[0]
        assert_spikes_equal(ours(x), expected, budget=1e-3)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert_spikes_equal(ours.eval()(x), tk.lif(theirs.eval()(x.flatten(0, 1)).view_as(x))[0], budget=1e-3)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}, {"return_v": True}])
def test_layer_options(options):
    layer = nn.BatchNormLIF2d(4, **options)
    x = torch.randn(3, 2, 4, 5, 5)
    outputs = layer(x)
    assert torch.equal((outputs[0] if "return_v" in options else outputs), tk.bn_lif(x)[0])
    assert isinstance(copy.deepcopy(layer), nn.BatchNormLIF2d)
    assert pickle.loads(pickle.dumps(layer)).extra_repr() == layer.extra_repr()
    assert "tau=2.0" in repr(layer)


def test_a_layer_without_running_statistics_takes_those_of_the_batch_in_eval_mode_too():
    layer = nn.BatchNormLIF2d(4, track_running_stats=False)
    x = torch.randn(3, 2, 4, 5, 5)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def test_stateful_layer_carries_v():
    layer = nn.BatchNormLIF2d(4, stateful=True).eval()
    x = torch.randn(6, 2, 4, 5, 5)
    whole = nn.BatchNormLIF2d(4).eval()(x)
    assert torch.equal(torch.cat([layer(x[:2]), layer(x[2:])]), whole)
    with pytest.raises(ValueError, match="holds v for a batch of shape"):
        layer(torch.randn(2, 3, 4, 5, 5))
    layer.reset()
    assert torch.equal(layer(x), whole)
    assert set(layer.state_dict()) == set(torch.nn.BatchNorm2d(4).state_dict())


def test_sync_batch_norm_keeps_the_neurons():
    model = torch.nn.Sequential(torch.nn.Identity(), nn.BatchNormLIF2d(4, tau=1.7))
    x = torch.randn(3, 2, 4, 5, 5)
    for _ in range(2):
        model(x)
    keys, expected = set(model.state_dict()), model.eval()(x)
    converted = nn.convert_sync_batchnorm(model)
    assert isinstance(converted[1], nn.SyncBatchNormLIF)
    assert set(converted.state_dict()) == keys
    assert_spikes_equal(converted(x), expected, budget=1e-3)


def test_folds_into_the_convolution_before():
    conv, layer = torch.nn.Conv2d(3, 4, 3), nn.BatchNormLIF2d(4, tau=1.7)
    x = torch.randn(5, 2, 3, 9, 9)
    current = conv(x.flatten(0, 1)).unflatten(0, (5, 2))
    layer(current)
    with pytest.raises(ValueError, match="eval mode"):
        nn.fuse_conv(conv, layer)
    expected = layer.eval()(current)
    folded, neurons = nn.fuse_conv(conv.eval(), layer)
    assert_spikes_equal(neurons(folded(x.flatten(0, 1)).unflatten(0, (5, 2))), expected, budget=1e-3)


class SequenceBatchNorm(torch.nn.BatchNorm2d):
    """Like SpikingJelly's layer.BatchNorm2d with step_mode "m"."""

    step_mode = "m"

    def forward(self, x_seq):
        return super().forward(x_seq.flatten(0, 1)).view_as(x_seq)


def test_convert_fuses_the_pairs_it_knows():
    model = torch.nn.Sequential(
        SequenceBatchNorm(4), nn.LIF(tau=1.7), torch.nn.Sequential(SequenceBatchNorm(4, momentum=0.2), nn.IF())
    )
    hooked = torch.nn.Sequential(SequenceBatchNorm(4), nn.LIF())
    hooked[1].register_forward_hook(lambda *_: None)
    model.append(hooked)
    x = torch.randn(5, 3, 4, 6, 6)
    model(x)
    fused, report = nn.convert(model)
    assert report == [
        "0 + 1: fused into BatchNormLIF2d",
        "2.0 + 2.1: fused into BatchNormLIF2d",
        "3.0 + 3.1: left alone, it has hooks",
    ]
    assert isinstance(model[1], nn.LIF)  # the model itself is unchanged
    assert isinstance(fused[3][1], nn.LIF)
    assert set(fused.state_dict()) == set(model.state_dict())
    assert_spikes_equal(fused(x), model(x), budget=1e-3)
    assert_spikes_equal(fused.eval()(x), model.eval()(x), budget=1e-3)


def test_running_averages_outlive_an_empty_batch(every_target):
    """Running averages survive an empty batch, as in torch's own batch norm."""
    backend, device = every_target
    ours, theirs = nn.BatchNormLIF1d(4, backend=backend).to(device), torch.nn.BatchNorm1d(4).to(device)
    for x in (torch.randn(3, 2, 4, 5, device=device), torch.zeros(3, 0, 4, 5, device=device)):
        ours(x)
        theirs(x.flatten(0, 1))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)
