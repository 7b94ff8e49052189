"""Backbones: shapes, feature tap, heads, parameter counts, learning, errors; more in test_models_spikingjelly.py."""

import copy
import itertools
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from tmkt.errors import UserError
from tmkt.models import create_model, model_names, register_model, registry
from tmkt.models.activity import layer_names, recorded_spikes
from tmkt.models.resnet import PreactBlock
from tmkt_kernels.nn import LIF, SPIKING_LAYERS, BatchNormLIF2d, PerStep, convert_sync_batchnorm

NEURON = {"v_threshold": 0.5, "surrogate": "triangle"}
# Currents are small in an untrained network with initial batch norm statistics; this threshold lets neurons fire.
EXCITABLE = {**NEURON, "v_threshold": 0.02}

# Every model in a small version, and the smallest frames (width, height) that it takes.
SMALL = {
    "small": ({}, 8),
    "vgg_snn": ({}, 16),
    "scnn": ({"hidden": 12}, 16),
    "sew_resnet18": ({"width": 4}, 8),
    "ms_resnet18": ({"width": 4}, 8),
    "preact_resnet18": ({"width": 4}, 8),
    "resnet19": ({"width": 4}, 4),
    "spikformer": ({"dim": 16, "num_heads": 2}, 4),
    "spike_driven": ({"dim": 16, "patch_size": 8}, 8),
}
CASES = [
    *((name, options, (least, least + 3)) for name, (options, least) in SMALL.items()),
    ("small", {"channels": [8]}, (19, 11)),
    ("sew_resnet18", {"width": 4, "stem": "imagenet", "connect": "iand"}, (33, 35)),
    ("ms_resnet18", {"width": 4, "stem": "imagenet"}, (65, 32)),
    ("spikformer", {"dim": 16, "num_heads": 2, "depth": 1, "mlp_ratio": 2}, (9, 10)),
    ("spike_driven", {"dim": 16, "patch_size": 1, "depth": 1}, (3, 2)),
]


def build(name, neuron=NEURON, size=None, **options):
    """Return the small model of this name, by default at twice its smallest size."""
    defaults, least = SMALL[name]
    return create_model(name, num_classes=3, size=size or (2 * least, 2 * least), neuron=neuron, **defaults, **options)


def awake(model):
    """Give batch norms a random scale. Initially MS-ResNet's blocks are zero, and small nets with tdBN silent."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def frames(model_size, T=3, B=2, scale=1.0):
    return torch.rand(T, B, 2, model_size[1], model_size[0]) * scale


def test_every_model_is_tested_and_documented():
    assert set(SMALL) == set(model_names())
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    for name in SMALL:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize(("name", "options", "size"), CASES)
@pytest.mark.parametrize("T", [1, 3])
def test_shapes_and_gradients(name, options, size, T):
    model = awake(create_model(name, num_classes=5, size=size, neuron=NEURON, **options))
    logits, features = model(frames(size, T))
    assert logits.shape == (T, 2, 5)
    assert features.shape == (T, 2, model.feature_dim)
    (logits.square().sum() + features.square().sum()).backward()
    for key, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    first = next(model.backbone.parameters())
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SMALL)
def test_features_are_the_membrane_potential_of_the_last_spiking_layer(name):
    model = awake(build(name, EXCITABLE)).eval()
    calls = []
    for module in model.modules():
        if isinstance(module, SPIKING_LAYERS):
            module.register_forward_hook(lambda module, args, out: calls.append((module, out)))
    size = (2 * SMALL[name][1],) * 2
    with torch.no_grad():
        features = model(frames(size, T=4, scale=5)).features
    assert [module for module, _ in calls if module.return_v] == [calls[-1][0]]
    spikes, v_seq = calls[-1][1]
    assert torch.equal(features, v_seq.flatten(2))
    fired = (v_seq >= 0.02).float()  # before the reset, so that it shows which neurons fired
    pool = getattr(calls[-1][0], "pool", 1)
    assert torch.equal(PerStep(nn.AvgPool2d(pool))(fired) if pool > 1 else fired, spikes)
    assert spikes.any()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("small", (71, 66)), ("vgg_snn", (64, 67))])
@pytest.mark.parametrize("training", [True, False])
def test_pooling_in_the_operator_equals_pooling_after_it(name, size, training):
    """Forward equals bit for bit, backward to rounding, also with odd rows and columns.

    Below 64 pixels the CPU adds the statistics of a batch in another order with pooling, and they round differently.
    """
    fused = awake(create_model(name, num_classes=3, size=size, neuron=EXCITABLE)).train(training)
    apart = copy.deepcopy(fused)
    for layer in (module for module in apart.modules() if isinstance(module, BatchNormLIF2d)):
        if layer.pool == 2:
            layer.pool = 1
            layer.register_forward_hook(pool_apart)
    x_seq = frames(size, T=2, scale=3)
    outputs = [model(x_seq) for model in (fused, apart)]
    for ours, theirs in zip(*outputs, strict=True):
        assert torch.equal(ours, theirs)
    assert outputs[0].logits.var() > 0
    for logits, features in outputs:
        (logits.square().sum() + features.square().mean()).backward()
    for ours, theirs in zip(fused.backbone.parameters(), apart.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6 * float(theirs.grad.abs().max()))


def pool_apart(layer, inputs, output):
    pool = PerStep(nn.AvgPool2d(2))
    return (pool(output[0]), output[1]) if layer.return_v else pool(output)


def test_keys_of_checkpoints_count_poolings_as_layers():
    blocks = {key.rpartition(".conv.")[0] for key in build("vgg_snn").backbone.state_dict() if ".conv." in key}
    assert blocks == {*(f"before.{i}" for i in (0, 1, 3, 4, 6, 7, 9)), "last"}
    blocks = {key.rpartition(".conv.")[0] for key in build("small").backbone.state_dict() if ".conv." in key}
    assert blocks == {"before.0", "before.2", "last"}


@pytest.mark.parametrize("name", SMALL)
def test_recorded_spikes_are_those_before_pooling(name):
    model = awake(build(name, EXCITABLE)).eval()
    x_seq = frames((2 * SMALL[name][1] + 1,) * 2, scale=3)
    with torch.no_grad():
        alone = model(x_seq)
        with recorded_spikes(model) as spikes:
            watched = model(x_seq)
        again = model(x_seq)
    assert all(bool(((s == 0) | (s == 1)).all()) for s in spikes.values())
    assert len(spikes) == len(layer_names(model))
    for outputs in (watched, again):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs, alone, strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_steps_are_causal_and_samples_independent_in_evaluation(name):
    model = awake(build(name, EXCITABLE)).eval()
    x_seq = frames((2 * SMALL[name][1],) * 2, T=4, scale=3)
    later = x_seq.clone()
    later[2:, 0] = 0
    with torch.no_grad():
        before, after = model(x_seq), model(later)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new[:2], old[:2])
        torch.testing.assert_close(new[:, 1], old[:, 1])
        assert not torch.equal(new[2:, 0], old[2:, 0])


@pytest.mark.parametrize(
    ("name", "classes", "channels", "options", "count"),
    [  # docs/models.md gives the source of each figure
        ("vgg_snn", 10, 2, {}, 9_268_746),
        ("scnn", 1623, 2, {}, 696_573),
        ("sew_resnet18", 1000, 3, {"stem": "imagenet"}, 11_689_512),
        ("ms_resnet18", 1000, 3, {"stem": "imagenet"}, 11_693_736),
        ("preact_resnet18", 20, 2, {}, 11_177_620),
        ("resnet19", 10, 3, {}, 12_697_994),
        ("spikformer", 10, 3, {"depth": 4, "dim": 384, "num_heads": 12}, 9_320_122),
        ("spikformer", 10, 2, {}, 2_566_666),
        ("spikformer", 1000, 3, {"depth": 8, "dim": 384, "num_heads": 12, "patch_size": 16}, 16_816_024),
        ("spike_driven", 10, 2, {}, 2_566_666),
        ("spike_driven", 1000, 3, {"depth": 8, "dim": 384, "patch_size": 16}, 16_816_024),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, channels, options, count):
    size = (28, 28) if name == "scnn" else (48, 48)
    with torch.device("meta"):
        model = create_model(name, num_classes=classes, in_channels=channels, size=size, heads=1, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_vgg_snn_has_the_published_layout():
    model = create_model("vgg_snn", num_classes=101, size=(48, 48), neuron=NEURON)
    assert model.backbone.spike_features == 512 * 3 * 3
    assert model.feature_dim == 512 * 6 * 6
    widths = [2, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.backbone.parameters()) == convolutions
    assert [head.weight.shape for head in model.heads.values()] == [(101, 4608)] * 2


def test_preact_block_is_batch_norm_neurons_convolution_twice():
    block = PreactBlock((4, 6, 2), EXCITABLE).eval()
    lif = LIF(**EXCITABLE)
    x_seq = torch.randn(3, 2, 4, 7, 7)

    def norm(layer, x):
        return nn.functional.batch_norm(
            x.flatten(0, 1), layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
        ).view_as(x)

    def convolve(layer, x):
        return layer(x.flatten(0, 1)).unflatten(0, (3, 2))

    residual = convolve(block.conv1.conv, lif(norm(block.bn1, x_seq)))
    residual = convolve(block.conv2, lif(norm(block.conv1.bn, residual)))
    shortcut = convolve(block.downsample[1][0], lif(norm(block.downsample[0], x_seq)))
    assert residual.abs().sum() > 0
    torch.testing.assert_close(block(x_seq), residual + shortcut)


@pytest.mark.parametrize("decay_input", [True, False])
def test_batch_norms_of_tdbn_and_ms_resnet_begin_at_the_threshold(decay_input):
    """tdBN's rule for the currents, which are twice as large if a neuron halves its input (tau = 2)."""
    start = 1.0 if decay_input else 0.5
    scales = {
        name: {
            round(module.weight[0].item(), 6)
            for module in build(name, {**NEURON, "decay_input": decay_input}).modules()
            if isinstance(module, nn.BatchNorm2d)
        }
        for name in ("resnet19", "ms_resnet18", "sew_resnet18")
    }
    half = round(start * math.sqrt(0.5), 6)
    assert scales == {"resnet19": {start, half}, "ms_resnet18": {start, 0.0}, "sew_resnet18": {1.0}}


def test_rates_of_resnet19_stay_from_layer_to_layer_as_it_begins():
    """The purpose of tdBN (arXiv 2011.05280)."""
    model = create_model("resnet19", num_classes=3, size=(16, 16), neuron=NEURON, width=16)
    rates = []
    for module in model.modules():
        if isinstance(module, SPIKING_LAYERS) and not module.return_v:
            module.register_forward_hook(lambda module, args, out: rates.append(out.detach().mean().item()))
    model(frames((16, 16), T=8, B=4).round())
    assert len(rates) == 17
    assert 0.1 < min(rates) < max(rates) < 0.2


def test_two_heads_differ_and_one_head_is_shared():
    x_seq = torch.rand(2, 2, 2, 16, 16)
    two, one = build("small", heads=2).eval(), build("small", heads=1).eval()
    assert not torch.equal(two(x_seq, "event").logits, two(x_seq, "mixed").logits)
    assert torch.equal(one(x_seq, "event").logits, one(x_seq, "mixed").logits)


# Wide enough to start learning. vgg_snn is left out, because it is the chain of `small` and slow.
LEARNERS = {name: {} for name in SMALL if name != "vgg_snn"}
LEARNERS |= {"scnn": {"hidden": 100}, "resnet19": {"width": 16}, "spike_driven": {"patch_size": 4}}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_eight_recordings_by_heart(name):
    """With the neurons of KT and TMKT, no network is initially too silent to train."""
    size = (28, 28) if name == "scnn" else (16, 16)
    options = SMALL[name][0] | LEARNERS[name]
    model = create_model(name, num_classes=3, size=size, neuron=NEURON, **options)
    x_seq, label = frames(size, T=4, B=8).round(), torch.arange(8) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x_seq).logits.mean(0), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_compiles_whole(name):
    """torch.compile traces the network without a break. The backend is eager, so that nothing is compiled here."""
    torch._dynamo.reset()
    model, x_seq = build(name).eval(), frames((2 * SMALL[name][1],) * 2)
    with torch.no_grad():
        logits = torch.compile(model, backend="eager", fullgraph=True)(x_seq).logits
        assert torch.equal(logits, model(x_seq).logits)


@pytest.mark.parametrize("name", SMALL)
def test_batch_norms_can_be_synchronised(name):
    model, x_seq = awake(build(name)).eval(), frames((2 * SMALL[name][1],) * 2, scale=3)
    with torch.no_grad():
        logits = model(x_seq).logits
        synchronised = convert_sync_batchnorm(model)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in synchronised.modules())
        torch.testing.assert_close(synchronised(x_seq).logits, logits)


def test_bfloat16_autocast_trains():
    model = build("spikformer")
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = model(frames((8, 8)))
    (logits.float().square().sum() + features.float().square().sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.backbone.parameters())


@pytest.mark.parametrize(("name", "size"), [(name, (least + 5, least - 1)) for name, (_, least) in SMALL.items()])
def test_frames_too_small(name, size):
    with pytest.raises(UserError, match=rf"data\.size: .* need frames of at least (\d+)x\1, got {size[0]}x{size[1]};"):
        build(name, size=size)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "no model is called 'vgg', the nearest is 'vgg_snn'"),
        ("vgg_snn", {"depth": 3}, r"unknown key model\.options\.depth; vgg_snn takes none"),
        (
            "resnet19",
            {"stem": "cifar"},
            r"unknown key model\.options\.stem; the nearest known one is model\.options\.width",
        ),
        ("resnet19", {"width": 0}, r"model\.options\.width: expected an integer above 0 such as 128, got 0"),
        ("resnet19", {"width": "8"}, r"model\.options\.width: expected an integer above 0 such as 128, got '8'"),
        ("resnet19", {"width": True}, r"model\.options\.width: expected an integer above 0"),
        ("small", {"channels": 8}, r"channels: expected a list of integers above 0 such as \[16, 32, 64\], got 8"),
        ("small", {"channels": []}, r"model\.options\.channels: expected a list"),
        (
            "small",
            {"channels": [8, 0.5]},
            r"model\.options\.channels: expected a list of integers above 0 .*got \[8, 0\.5\]",
        ),
        ("sew_resnet18", {"stem": "vit"}, r"model\.options\.stem: expected one of cifar, imagenet; got 'vit'"),
        ("sew_resnet18", {"connect": 1}, r"model\.options\.connect: expected a text such as add, got 1"),
        ("sew_resnet18", {"connect": "or"}, r"model\.options\.connect: expected one of add, and, iand; got 'or'"),
        ("spikformer", {"patch_size": 3}, r"model\.options\.patch_size: expected one of \(1, 2, 4, 8, 16\), got 3"),
        ("spikformer", {"dim": 40}, r"model\.options\.dim: expected a multiple of 16, got 40"),
        ("spikformer", {"scale": math.nan}, r"model\.options\.scale: expected a number above 0"),
        ("spike_driven", {"dim": 12}, r"model\.options\.dim: expected a multiple of 8, got 12"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, num_classes=2, size=(64, 64), **options)


def test_an_integer_serves_for_a_float():
    assert build("spikformer", scale=1).backbone.last.attention.scale == 1.0


def test_a_backbone_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", {})

    @register_model
    def flat(in_channels, size, neuron, fast: bool = True, gain: float = 1.0):
        backbone = nn.Identity()
        backbone.spike_features = backbone.membrane_features = in_channels
        backbone.got = (fast, gain)
        return backbone

    model = create_model("flat", num_classes=2, in_channels=7, size=(1, 1), fast=False, gain=2)
    assert model.backbone.got == (False, 2.0)
    assert model.feature_dim == 7
    with pytest.raises(UserError, match=r"model\.options\.fast: expected true or false, got 1"):
        create_model("flat", num_classes=2, size=(1, 1), fast=1)


def test_models_can_be_pickled():
    model = build("sew_resnet18", connect="iand").eval()
    x_seq = frames((16, 16))
    assert torch.equal(pickle.loads(pickle.dumps(model))(x_seq).logits, model(x_seq).logits)


def test_number_of_heads():
    with pytest.raises(ValueError, match="heads: expected 1"):
        build("small", heads=3)
