"""Augmentations in a training step: alike in both streams, for every method, share and resumed run."""

import pytest
import torch

from tmkt.analysis import figures
from tmkt.analysis.diagnose import diagnose
from tmkt.analysis.example_batch import example_batch
from tmkt.config import AugmentConfig, TeacherConfig, TransferConfig
from tmkt.data import Augmentation, prepare, sample_pairs
from tmkt.errors import UserError
from tmkt.method import losses
from tmkt.method.teacher import Targets
from tmkt.method.transfer import TransferTask, build_streams
from tmkt.mixup import event_step_mask
from tmkt.models import create_model
from tmkt.training.trainer import train

T, B = 4, 24
EACH = {
    "nda": {"nda": True},
    "nda_images": {"nda": True, "streams": "images"},
    "event_drop": {"event_drop": 1.0},
    "cutmix": {"cutmix": 1.0},
    "event_mix": {"event_mix": 1.0},
    "time_mix": {"time_mix": 1.0},
    "time_mix_any": {"time_mix": 1.0, "time_mix_with": "any"},
}
ALL = {"nda": True, "event_drop": 0.75, "cutmix": 0.3, "event_mix": 0.3, "time_mix": 0.3}
METHODS = ("bridge", "events_only", "static_only", "finetune", "joint", "sliding", "ckd", "tmkt")


def step(data, augment, share=slice(None), seed=0, targets=None, **transfer):
    """Return the pairs of a step and its streams."""
    generator = torch.Generator().manual_seed(seed)
    pairs = sample_pairs(data, B, generator, Augmentation(padding=1, augment=AugmentConfig(**augment)))
    built = build_streams(
        TransferConfig(**transfer),
        data,
        pairs,
        progress=0.5,
        event_scale=2.0,
        generator=generator,
        share=share,
        targets=targets,
    )
    return pairs, built


@pytest.fixture(params=[None, "images", "between"], ids=str)
def data(request, tiny):
    bridge = {} if request.param is None else {"data__bridge": "camera", "data__bridge_place": request.param}
    return prepare(tiny.replace(**bridge)).train


def test_off_by_default(data):
    pairs, built = step(data, {})
    assert pairs[5:] == (None, None, None)
    assert built.label.dtype == torch.int64
    assert built.is_event is None
    assert torch.equal(built.classes, pairs.label)


def test_without_augmentations_a_step_draws_nothing_for_them(tiny):
    """The order of the draws is that of runs from before there were any."""
    data = prepare(tiny).train
    generator, plain = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    pairs = sample_pairs(data, B, generator, Augmentation(padding=1))
    assert torch.equal(pairs.label, torch.cat([torch.randperm(3, generator=plain) for _ in range(B // 3)]))
    assert torch.equal(pairs.static_index, data.static_by_class.draw(pairs.label, plain))
    assert torch.equal(pairs.event_index, data.events_by_class.draw(pairs.label, plain))
    assert torch.equal(pairs.transform.offset, torch.randint(3, (B, 2), generator=plain) - 1)
    assert torch.equal(generator.get_state(), plain.get_state())


@pytest.mark.parametrize("augment", [*EACH.values(), ALL], ids=[*EACH, "all"])
def test_a_share_of_the_batch_is_the_same_part_of_the_whole(data, augment):
    _, whole = step(data, augment)
    for part in (slice(0, 5), slice(5, 6), slice(6, B)):
        _, own = step(data, augment, share=part)
        torch.testing.assert_close(own.main, whole.main[:, part], atol=1e-5, rtol=0)
        torch.testing.assert_close(own.mixed, whole.mixed[:, part], atol=1e-5, rtol=0)
        assert torch.equal(own.switch_step, whole.switch_step[part])
        assert torch.equal(own.label, whole.label[part])
        assert (own.is_event is None) == (whole.is_event is None)
        assert own.is_event is None or torch.equal(own.is_event, whole.is_event[:, part])


@pytest.mark.parametrize("augment", [*EACH.values(), ALL], ids=[*EACH, "all"])
def test_streams_are_alike_where_both_show_the_recording(tiny, augment):
    """Sliding training at progress 1 shows the recordings in both streams."""
    generator = torch.Generator().manual_seed(0)
    data = prepare(tiny).train
    pairs = sample_pairs(data, B, generator, Augmentation(augment=AugmentConfig(**augment)))
    config = TransferConfig(method="sliding")
    built = build_streams(config, data, pairs, progress=1.0, event_scale=2.0, generator=generator)
    assert torch.equal(built.main, built.mixed)
    plain = data.events.frames[:, pairs.event_index[:B]].float() * 2
    assert torch.equal(built.main, plain) == (augment.get("streams") == "images")


def test_a_mixed_step_is_as_much_of_events_as_its_cells(tiny):
    """By their definition, from the sequences without a mix: those of all pairs as a batch of their own."""
    data = prepare(tiny).train
    pairs, built = step(data, {"event_mix": 0.5, "cutmix": 0.5})
    blend = pairs.mix.blend(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    sample_pairs(data, B, generator, Augmentation(padding=1, augment=AugmentConfig(event_mix=0.5, cutmix=0.5)))
    alone = build_streams(
        TransferConfig(), data, pairs._replace(mix=None), progress=0.5, event_scale=2.0, generator=generator
    )
    assert alone.main.shape[1] == 2 * B
    assert torch.equal(built.mixed, blend.sequences(alone.mixed))
    assert torch.equal(built.main, blend.sequences(alone.main))
    events = event_step_mask(alone.switch_step, T)[..., None, None].expand(-1, -1, 16, 16)
    cells = torch.where(blend.mask.transpose(0, 1), events[:, B:], events[:, :B])
    torch.testing.assert_close(built.is_event, cells.mean((2, 3)))
    assert ((built.is_event > 0) & (built.is_event < 1)).any()
    own, partner = torch.eye(3)[pairs.label[:B]], torch.eye(3)[pairs.label[B:]]
    share = blend.mask.float().mean((1, 2, 3))[:, None]
    torch.testing.assert_close(built.label, (1 - share) * own + share * partner)
    assert torch.equal(built.classes, built.label.argmax(1))


def test_time_mix_in_the_class_keeps_the_label(data):
    pairs, built = step(data, {"time_mix": 1.0})
    assert torch.equal(built.label, pairs.label[:B])
    assert built.is_event.shape == (T, B)


def test_losses_take_shares_of_classes():
    logits, label = torch.randn(T, 5, 3), torch.tensor([0, 1, 2, 1, 0])
    shares = torch.eye(3)[label]
    torch.testing.assert_close(losses.mean_cross_entropy(logits, shares), losses.mean_cross_entropy(logits, label))
    torch.testing.assert_close(losses.tet(logits, shares, theta=0.5), losses.tet(logits, label, theta=0.5))
    other = torch.eye(3)[(label + 1) % 3]
    mixed = losses.tet(logits, 0.3 * shares + 0.7 * other, theta=0.5)
    both = 0.3 * losses.tet(logits, shares, theta=0.5) + 0.7 * losses.tet(logits, other, theta=0.5)
    torch.testing.assert_close(mixed, both)


def test_ckd_mixes_the_teachers_probabilities_and_features(tiny):
    data, temperature = prepare(tiny).train, 3.0
    targets = Targets(5 * torch.randn(len(data.images), 3), torch.randn(len(data.images), 7))
    teacher = TeacherConfig(temperature=temperature)
    pairs, built = step(data, {"cutmix": 1.0}, targets=targets, method="ckd", teacher=teacher)
    share = pairs.mix.blend(torch.device("cpu")).share[:, None]
    of_all = targets.at(pairs.static_index)
    own, partner = (of_all.logits / temperature).softmax(1).chunk(2)
    found = (built.targets.logits / temperature).softmax(1)
    torch.testing.assert_close(found, (1 - share) * own + share * partner)
    own, partner = of_all.features.chunk(2)
    torch.testing.assert_close(built.targets.features, (1 - share) * own + share * partner)


def test_modality_losses_read_the_share_of_event_cells(tiny):
    _, built = step(prepare(tiny).train, {"cutmix": 1.0})
    model = create_model("small", num_classes=3, size=(16, 16), neuron={"v_threshold": 0.5}, channels=(4, 8))
    task = TransferTask(model, TransferConfig(), theta=0.5, time_steps=T)
    with torch.no_grad():
        task.mrp_head.weight.zero_()
        task.mrp_head.bias.zero_()
    parts = task(*built)["parts"]
    torch.testing.assert_close(parts["mrp"], (0.5 - built.is_event.mean(0)).square().mean())
    assert torch.isfinite(parts["mag"])


@pytest.mark.slow
@pytest.mark.parametrize("augment", [*EACH.values(), ALL], ids=[*EACH, "all"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_every_augmentation(tiny, method, augment):
    settings = {f"data__augment__{key}": value for key, value in augment.items()}
    config = tiny.replace(**settings, transfer__method=method, train__steps=2, transfer__teacher__steps=1)
    assert train(config, introduce=False).total == 9


def test_pictures_and_diagnosis_of_a_run_that_mixes(tiny):
    config = tiny.replace(data__augment__cutmix=1.0)
    example = example_batch(config, prepare(config), progress=0.0, samples=12)
    assert any("% of " in name for name in example.classes)
    assert ((example.is_event > 0) & (example.is_event < 1)).any()
    assert figures.mixed_batch(*example).axes
    plain = example_batch(tiny, prepare(tiny), progress=0.0)
    assert torch.equal(plain.is_event, event_step_mask(plain.switch_step, T))
    train(config)
    assert diagnose(config.out, draws=2, samples=9).draws == 2


@pytest.mark.parametrize(
    ("augment", "key"),
    [
        ({"cutmix": 0.6, "event_mix": 0.3, "time_mix": 0.2}, "cutmix"),
        ({"event_drop": 0.5, "streams": "images", "nda": True}, "streams"),
        ({"streams": "events"}, "streams"),
        ({"cutmix": 1.5}, "cutmix"),
        ({"nda": 1}, "nda"),
        ({"time_mix_with": "other"}, "time_mix_with"),
    ],
)
def test_settings_without_a_meaning_are_one_clear_error(augment, key):
    with pytest.raises(UserError, match=rf"^data\.augment\.{key}: "):
        AugmentConfig(**augment)


def test_time_mix_needs_two_steps(tiny):
    with pytest.raises(UserError, match=r"^data\.augment\.time_mix: .*time_steps is 1"):
        tiny.replace(data__time_steps=1, data__augment__time_mix=0.5)
