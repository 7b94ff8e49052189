"""The transfer methods: what each step sees, and which losses make its total."""

import pytest
import torch

from tmkt.config import TransferConfig
from tmkt.data import prepare, sample_pairs
from tmkt.models import create_model
from tmkt.transfer import TransferTask, build_streams, draw_switch_steps, frozen_running_statistics, mixup_ratio, phases

T = 4


@pytest.fixture
def data(tiny):
    return prepare(tiny).train


def streams(data, config, progress=0.5, batch=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pairs = sample_pairs(data, batch, 0, generator)
    built = build_streams(config, data, pairs, progress=progress, event_scale=2.0, crop_padding=0, generator=generator)
    return built, pairs


def task_for(config):
    torch.manual_seed(0)
    model = create_model("small", num_classes=3, size=(16, 16), neuron={"v_threshold": 0.5}, channels=(4, 8))
    return TransferTask(model, config, theta=0.5)


def test_mixed_sequence_is_a_static_prefix_and_an_event_suffix(data):
    built, pairs = streams(data, TransferConfig())
    assert len(built.switch_step.unique()) > 2
    for b in range(12):
        image = data.images[pairs.static_index[b]].float() / 255
        events = data.events.frames[:, pairs.event_index[b]].float() * 2
        switch = int(built.switch_step[b])
        assert torch.equal(built.main[:, b], events)
        assert torch.equal(built.mixed[switch:, b], events[switch:])
        for t in range(switch):
            torch.testing.assert_close(built.mixed[t, b], image.expand(2, -1, -1))


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)])
def test_sliding_replaces_whole_samples_with_growing_probability(progress, share):
    config = TransferConfig(method="sliding", power=2.0)
    drawn = draw_switch_steps(config, 20_000, T, progress, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) <= {0, T}
    assert (drawn == 0).double().mean() == pytest.approx(share, abs=0.015)


def test_one_stream_methods(data):
    only, pairs = streams(data, TransferConfig(method="events_only"))
    assert only.mixed is None
    assert torch.equal(only.main, data.events.frames[:, pairs.event_index].float() * 2)
    first, pairs = streams(data, TransferConfig(method="finetune"), progress=0.49)
    image = data.images[pairs.static_index].float() / 255
    torch.testing.assert_close(first.main, image.expand(T, -1, 2, -1, -1))
    second, pairs = streams(data, TransferConfig(method="finetune"), progress=0.5)
    assert torch.equal(second.main, data.events.frames[:, pairs.event_index].float() * 2)


def test_phases_share_the_steps():
    assert phases(TransferConfig(method="finetune"), 8) == [4, 4]
    assert phases(TransferConfig(method="finetune"), 9) == [5, 4]  # step 4 of 9 is before the middle: static
    assert phases(TransferConfig(method="tmkt"), 9) == [9]


def test_ratio_schedule():
    assert mixup_ratio(TransferConfig(ratio=0.4), 0.7) == 0.4
    assert mixup_ratio(TransferConfig(ratio=0.2, ratio_end=0.8), 0.5) == pytest.approx(0.5)


def test_total_is_the_weighted_sum_of_the_parts(data):
    config = TransferConfig(da_weight=0.5, mag_weight=0.25, mrp_weight=2.0)
    result = task_for(config)(*streams(data, config)[0])
    parts = result["parts"]
    assert set(parts) == {"ce_event", "ce_mixed", "da", "mag", "mrp"}
    expected = parts["ce_event"] + parts["ce_mixed"] + 0.5 * parts["da"] + 0.25 * parts["mag"] + 2 * parts["mrp"]
    torch.testing.assert_close(result["loss"].detach(), expected)
    assert result["logits"].shape == (T, 12, 3)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"method": "sliding"}, {"ce_event", "ce_mixed", "da"}),
        ({"method": "events_only"}, {"ce_event"}),
        ({"method": "finetune"}, {"ce_event"}),
        ({"da_weight": 0.0}, {"ce_event", "ce_mixed", "mag", "mrp"}),
        ({"mag_weight": 0.0, "mrp_weight": 0.0}, {"ce_event", "ce_mixed", "da"}),
    ],
)
def test_parts_of_each_method_and_ablation(data, settings, parts):
    config = TransferConfig(**settings)
    assert set(task_for(config)(*streams(data, config)[0])["parts"]) == parts


@pytest.mark.parametrize("kind", ["joint", "separate"])
def test_every_parameter_learns(data, kind):
    config = TransferConfig(streams=kind, mag_on_events=True, mrp_loss="bce", classification="ce")
    task = task_for(config)
    task(*streams(data, config)[0])["loss"].backward()
    missing = [name for name, p in task.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []
    assert task.mag_head.weight.grad.any()


def test_separate_streams_leave_running_statistics_to_the_event_stream(data):
    config = TransferConfig(streams="separate")
    task, alone = task_for(config), task_for(TransferConfig(method="events_only"))
    built, _ = streams(data, config)
    task(*built)
    alone(built.main, None, None, built.label)
    ours, theirs = task.model.backbone.state_dict(), alone.model.backbone.state_dict()
    for name in ours:
        if "running" in name:
            assert torch.equal(ours[name], theirs[name])


def test_joint_streams_share_batch_statistics(data):
    config = TransferConfig(streams="joint")
    task = task_for(config)
    built, _ = streams(data, config)
    task(*built)
    both = torch.cat([built.main, built.mixed], dim=1).flatten(0, 1)
    first = task.model.backbone.before[0]
    expected = 0.1 * first.conv(both).mean((0, 2, 3))
    torch.testing.assert_close(first.bn.running_mean, expected)


def test_frozen_statistics_give_momentum_back_after_an_error():
    norm = torch.nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="expected 2D or 3D input"), frozen_running_statistics(norm):
        norm(torch.rand(2))
    with frozen_running_statistics(norm):
        norm(torch.rand(4, 2))
    assert norm.momentum == 0.1
    assert torch.equal(norm.running_mean, torch.zeros(2))
