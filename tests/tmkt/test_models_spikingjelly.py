"""Same output as the models of SpikingJelly 2.0.0 at equal weights, bit for bit, and the same gradients.

Weights, batch norm statistics and inputs are dyadic numbers of few bits (and eps is 0), so that no sum is rounded, in
whatever order either side adds. The tests therefore allow no flip of a spike. `pip install tmkt[rivals]`.
"""

import pytest
import torch
from torch import nn

from tmkt.models import create_model
from tmkt.models.resnet19 import TDBlock
from tmkt_kernels.nn import SPIKING_LAYERS

NEURON = {"tau": 2.0, "v_threshold": 1.0, "surrogate": "atan", "alpha": 2.0}
T, B, CLASSES = 4, 2, 5


@pytest.fixture(scope="module")
def sj():
    """spikingjelly.activation_based, with the parts that these tests use."""
    models = (f"model.{family}" for family in ("ms_resnet", "sew_resnet", "spiking_resnet", "spikformer"))
    for module in ("functional", "layer", "neuron", "surrogate", "model.spike_driven_transformer", *models):
        pytest.importorskip(f"spikingjelly.activation_based.{module}", reason="spikingjelly is not installed")
    from spikingjelly import activation_based

    return activation_based


def dyadic(shape, low, high, bits):
    """Return random integers in [low, high] divided by 2**bits."""
    return torch.randint(low, high + 1, shape).float() / 2**bits


def weighted(model):
    """Return layers with parameters, in the order of their creation; separate q, k and v as one entry of three."""
    entries = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)):
            continue
        part = name.rpartition(".")[2]
        if part.startswith("q_"):
            entries.append([model.get_submodule(name[: -len(part)] + letter + part[1:]) for letter in "qkv"])
        elif not part.startswith(("k_", "v_")):
            entries.append([module])
    return entries


@torch.no_grad()
def give_exact_weights(ours, theirs, bits):
    """Set equal weights and statistics, so coarse that sums in float32 are exact, and so large that all layers fire."""
    left, right = weighted(ours), weighted(theirs)
    assert len(left) == len(right)
    for (own,), others in zip(left, right, strict=True):
        if isinstance(own, nn.modules.batchnorm._BatchNorm):
            values = {
                "weight": dyadic(own.weight.shape, 1, 3, 1),
                "bias": dyadic(own.weight.shape, 0, 3, 1),
                "running_mean": dyadic(own.weight.shape, -1, 1, 1),
                "running_var": torch.ones_like(own.weight),
            }
        else:
            values = {"weight": dyadic(own.weight.shape, -2, 2, bits)}
        for module in (own, *others):
            module.eps = 0.0
            if "bias" not in values and module.bias is not None:
                module.bias.zero_()  # before a batch norm, only one side may have a bias
        for name, value in values.items():
            getattr(own, name).copy_(value)
            for module, part in zip(others, value.chunk(len(others)), strict=True):
                getattr(module, name).copy_(part.view_as(getattr(module, name)))


def assert_same(sj, name, theirs, *, bits, size, mean=False, **options):
    """Compare logits and gradients of our model `name` and theirs; with `mean`, theirs are averaged over steps."""
    sj.functional.set_step_mode(theirs, "m")
    ours = create_model(name, num_classes=CLASSES, in_channels=3, size=size, heads=1, neuron=NEURON, **options)
    give_exact_weights(ours, theirs, bits)
    ours.eval(), theirs.eval()
    rates = []
    for module in ours.modules():
        if isinstance(module, SPIKING_LAYERS):
            module.register_forward_hook(
                lambda module, args, out: rates.append((out[0] if isinstance(out, tuple) else out).detach().mean())
            )
    x_seq = dyadic((T, B, 3, size[1], size[0]), 0, 8, 2)
    results = []
    for model in (lambda x: ours(x).logits.mean(0) if mean else ours(x).logits, theirs):
        leaf = x_seq.clone().requires_grad_()
        logits = model(leaf)
        results += [logits.detach(), *torch.autograd.grad(logits.square().sum(), leaf)]
    logits, grad, expected, expected_grad = results
    assert min(rates) > 0.001  # a silent layer, or one that always fires, could hide a difference before it
    assert max(rates) < 0.99
    assert torch.equal(logits, expected)
    assert (grad - expected_grad).norm() < 1e-5 * expected_grad.norm()
    assert expected_grad.abs().amax((1, 2, 3, 4)).all()  # every step counts
    return ours


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def lif(sj, **keywords):
    return {"detach_reset": True, "surrogate_function": sj.surrogate.ATan(alpha=2.0), **keywords}


@pytest.mark.slow
@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_sew_resnet18(sj, connect):
    theirs = sj.model.sew_resnet.sew_resnet18(
        cnf=connect.upper(), spiking_neuron=sj.neuron.LIFNode, num_classes=CLASSES, **lif(sj)
    )
    ours = assert_same(sj, "sew_resnet18", theirs, bits=4, size=(64, 32), stem="imagenet", connect=connect)
    assert parameters(ours) == parameters(theirs)


def test_ms_resnet18(sj):
    theirs = sj.model.ms_resnet.ms_resnet18(num_classes=CLASSES, **lif(sj, tau=2.0, v_threshold=1.0, decay_input=True))
    ours = assert_same(sj, "ms_resnet18", theirs, bits=4, size=(64, 32), stem="imagenet", mean=True)
    assert parameters(ours) == parameters(theirs)


def test_block_of_resnet19(sj):
    """SpikingJelly has no ResNet-19, but it has its block: neurons on the sum of residual and shortcut."""
    layer = sj.layer
    downsample = nn.Sequential(layer.Conv2d(8, 16, 1, 2, bias=False), layer.BatchNorm2d(16))
    theirs = sj.model.spiking_resnet.BasicBlock(8, 16, 2, downsample, spiking_neuron=sj.neuron.LIFNode, **lif(sj))
    sj.functional.set_step_mode(theirs, "m")
    ours = TDBlock((8, 16, 2), NEURON)
    give_exact_weights(ours, theirs, bits=3)
    x_seq = dyadic((T, B, 8, 9, 9), 0, 1, 0)
    spikes, expected = ours.eval()(x_seq), theirs.eval()(x_seq)
    assert 0.1 < expected.mean() < 0.9
    assert torch.equal(spikes, expected)


@pytest.mark.slow
def test_spikformer(sj):
    """SpikingJelly pools before the neurons of the patch stem; the paper and its code pool after them, as we do."""
    theirs = sj.model.spikformer.Spikformer(
        img_size_h=16, img_size_w=32, patch_size=4, num_classes=CLASSES, embed_dims=32, num_heads=4, depths=2,
        surrogate_function=sj.surrogate.ATan(alpha=2.0),
    )  # fmt: skip
    stages = theirs.patch_embed.stages
    for i, stage in enumerate(stages):
        chain = stage.conv_bn.block
        if isinstance(chain[-1], nn.MaxPool2d):
            del chain[-1]
            stages[i] = nn.Sequential(stage, sj.layer.MaxPool2d(3, 2, 1))
    assert_same(sj, "spikformer", theirs, bits=2, size=(32, 16), dim=32, num_heads=4)


@pytest.mark.parametrize("patch_size", [4, 16])
def test_spike_driven(sj, patch_size):
    theirs = sj.model.spike_driven_transformer.SpikeDrivenTransformer(
        num_classes=CLASSES, embed_dims=32, num_heads=4, depths=2,
        pooling_stat={4: "0011", 16: "1111"}[patch_size], **lif(sj),
    )  # fmt: skip
    assert_same(sj, "spike_driven", theirs, bits=2, size=(32, 16), mean=True, dim=32, patch_size=patch_size)
