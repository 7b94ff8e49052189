"""Backbones: shapes, the feature tap, heads, parameter counts, errors."""

import itertools

import pytest
import torch

from tmkt.errors import UserError
from tmkt.models import create_model, model_names
from tmkt_kernels.nn import BatchNormLIF2d

NEURON = {"v_threshold": 0.5, "surrogate": "triangle"}
# Untrained and with batch norm at its first statistics, currents are small: this threshold lets neurons fire.
EXCITABLE = {**NEURON, "v_threshold": 0.02}


@pytest.mark.parametrize(("name", "size"), [("small", (34, 34)), ("small", (19, 11)), ("vgg_snn", (16, 18))])
@pytest.mark.parametrize("T", [1, 3])
def test_shapes_and_gradients(name, size, T):
    model = create_model(name, num_classes=5, size=size, neuron=NEURON)
    x_seq = torch.rand(T, 2, 2, size[1], size[0])
    logits, features = model(x_seq)
    assert logits.shape == (T, 2, 5)
    assert features.shape == (T, 2, model.feature_dim)
    (logits.sum() + features.square().sum()).backward()
    for parameter in model.backbone.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_vgg_snn_has_the_published_layout():
    model = create_model("vgg_snn", num_classes=101, size=(48, 48), neuron=NEURON)
    assert model.backbone.spike_features == 512 * 3 * 3
    assert model.feature_dim == 512 * 6 * 6
    widths = [2, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.backbone.parameters()) == convolutions
    assert [head.weight.shape for head in model.heads.values()] == [(101, 4608)] * 2


def test_features_are_the_membrane_potential_of_the_last_spiking_layer():
    model = create_model("small", num_classes=3, size=(16, 16), neuron=EXCITABLE).eval()
    kept = {}
    last = [m for m in model.modules() if isinstance(m, BatchNormLIF2d)][-1]
    last.register_forward_hook(lambda module, inputs, output: kept.update(spikes=output[0], v=output[1]))
    with torch.no_grad():
        features = model(torch.rand(4, 2, 2, 16, 16) * 5).features
    assert torch.equal(features, kept["v"].flatten(2))
    assert torch.equal((features >= 0.02).float(), kept["spikes"].flatten(2))  # before reset: it shows who fired
    assert kept["spikes"].any()


def test_two_heads_differ_and_one_head_is_shared():
    x_seq = torch.rand(2, 2, 2, 16, 16)
    two = create_model("small", num_classes=3, size=(16, 16), neuron=NEURON, heads=2).eval()
    one = create_model("small", num_classes=3, size=(16, 16), neuron=NEURON, heads=1).eval()
    assert not torch.equal(two(x_seq, "event").logits, two(x_seq, "mixed").logits)
    assert torch.equal(one(x_seq, "event").logits, one(x_seq, "mixed").logits)


def test_steps_are_causal_and_samples_independent_in_evaluation():
    model = create_model("small", num_classes=3, size=(16, 16), neuron=EXCITABLE).eval()
    x_seq = torch.rand(4, 2, 2, 16, 16) * 3
    logits = model(x_seq).logits
    later = x_seq.clone()
    later[2:, 0] = 0
    changed = model(later).logits
    assert torch.equal(changed[:2], logits[:2])
    assert torch.equal(changed[:, 1], logits[:, 1])
    assert not torch.equal(changed[2:, 0], logits[2:, 0])


def test_errors():
    assert model_names() == ["small", "vgg_snn"]
    with pytest.raises(UserError, match="no model is called 'vgg', the nearest is 'vgg_snn'"):
        create_model("vgg", num_classes=2, size=(32, 32))
    with pytest.raises(UserError, match="4 poolings need frames of at least 16x16, got 34x15"):
        create_model("vgg_snn", num_classes=2, size=(34, 15))
    with pytest.raises(UserError, match=r"model\.options: vgg_snn does not take"):
        create_model("vgg_snn", num_classes=2, size=(32, 32), depth=3)
    with pytest.raises(ValueError, match="heads: expected 1"):
        create_model("small", num_classes=2, size=(32, 32), heads=3)
