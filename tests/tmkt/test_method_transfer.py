"""The transfer methods: the inputs of each step, and the losses in its total."""

import pytest
import torch

import tmkt_kernels
from tmkt.config import TeacherConfig, TransferConfig
from tmkt.data import prepare, sample_pairs
from tmkt.errors import UserError
from tmkt.method.teacher import Targets
from tmkt.method.transfer import TransferTask, build_streams, draw_switch_steps, mixup_ratio, phases
from tmkt.models import create_model
from tmkt.models.modes import domain_statistics, frozen_running_statistics
from tmkt_kernels.nn import BatchNormLIF2d, PerStep

T = 4


@pytest.fixture
def data(tiny):
    return prepare(tiny).train


def streams(data, config, progress=0.5, batch=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pairs = sample_pairs(data, batch, generator)
    built = build_streams(config, data, pairs, progress=progress, event_scale=2.0, generator=generator)
    return built, pairs


def task_for(config):
    torch.manual_seed(0)
    model = create_model("small", num_classes=3, size=(16, 16), neuron={"v_threshold": 0.5}, channels=(4, 8))
    return TransferTask(model, config, theta=0.5, time_steps=T)


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
    assert phases(TransferConfig(method="finetune"), 9) == [5, 4]  # step 4 of 9 is before the middle, and so static
    assert phases(TransferConfig(method="tmkt"), 9) == [9]


def test_ratio_schedule():
    assert mixup_ratio(TransferConfig(ratio=0.4), 0.7) == 0.4
    expected = {"linear": 0.4, "cosine": 0.35, "power": 0.2 + 0.6 / 9, "random": 0.5, "loss": 0.4}
    for schedule, after_a_third in expected.items():
        config = TransferConfig(ratio=0.2, ratio_end=0.8, schedule=schedule, power=2.0)
        assert mixup_ratio(config, 1 / 3) == pytest.approx(after_a_third)


def switches(settings, progress=0.5, batch=20_000):
    return draw_switch_steps(TransferConfig(**settings), batch, T, progress, torch.Generator().manual_seed(0))


def test_random_ratio_has_the_mean_of_its_bounds_and_a_wider_spread():
    fixed = T - switches({"ratio": 0.5})
    spread = T - switches({"ratio": 0.0, "ratio_end": 1.0, "schedule": "random"})
    for drawn in (fixed, spread):
        assert (drawn.double().mean() / T).item() == pytest.approx(0.5, abs=0.01)
    assert spread.double().std() > 1.05 * fixed.double().std()


def test_without_tsm_whole_samples_are_mixed_at_the_same_share():
    drawn = switches({"mixing": "sample", "ratio": 0.3})
    assert set(drawn.tolist()) == {0, T}
    assert (drawn == 0).double().mean().item() == pytest.approx(0.3, abs=0.015)


def test_joint_and_static_only_see_images_alone_beside_the_events(data):
    joint, pairs = streams(data, TransferConfig(method="joint"))
    still = (data.images[pairs.static_index].float() / 255).expand(T, -1, 2, -1, -1)
    torch.testing.assert_close(joint.mixed, still)
    assert torch.equal(joint.main, data.events.frames[:, pairs.event_index].float() * 2)
    alone, pairs = streams(data, TransferConfig(method="static_only"), progress=0.9)
    assert alone.mixed is None
    torch.testing.assert_close(alone.main, (data.images[pairs.static_index].float() / 255).expand(T, -1, 2, -1, -1))


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
        ({"method": "joint"}, {"ce_event", "ce_mixed", "da"}),
        ({"method": "static_only"}, {"ce_event"}),
        ({"mixing": "sample"}, {"ce_event", "ce_mixed", "da", "mag", "mrp"}),
        ({"method": "events_only"}, {"ce_event"}),
        ({"method": "finetune"}, {"ce_event"}),
        ({"da_weight": 0.0}, {"ce_event", "ce_mixed", "mag", "mrp"}),
        ({"mag_weight": 0.0, "mrp_weight": 0.0}, {"ce_event", "ce_mixed", "da"}),
        ({"method": "joint", "average": 0.9}, {"ce_event", "ce_mixed", "da"}),
        ({"method": "joint", "average": 0.9, "consistency_weight": 1.0}, {"ce_event", "ce_mixed", "da", "consistency"}),
        ({"method": "events_only", "average": 0.9, "consistency_weight": 1.0, "distillation": True}, {"ce_event"}),
    ],
)
def test_parts_of_each_method_and_ablation(data, settings, parts):
    config = TransferConfig(**settings)
    assert set(task_for(config)(*streams(data, config)[0])["parts"]) == parts


@pytest.mark.parametrize(
    "settings",
    [
        {"streams": "joint", "mag_on_events": True, "mrp_loss": "bce", "classification": "ce"},
        {"streams": "separate", "features": "spikes", "da_learnable": True},
    ],
)
def test_every_parameter_learns(data, settings):
    config = TransferConfig(**settings)
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
    statistics = [name for name in ours if "running" in name]
    assert statistics
    for name in statistics:
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


def test_learnable_coefficients_share_each_step_between_alignment_and_the_event_loss(data):
    """At sigmoid(0) both weights are a half; the gradient then increases the weight of the smaller loss."""
    plain, learnable = TransferConfig(), TransferConfig(da_learnable=True)
    built, _ = streams(data, plain)
    task = task_for(learnable)
    parts, halved = task_for(plain)(*built)["parts"], task(*built)
    for name, share in {"da": 0.5, "ce_event": 0.5, "ce_mixed": 1.0}.items():
        torch.testing.assert_close(halved["parts"][name], share * parts[name])
    halved["loss"].backward()
    # d loss / d c[t] = sigmoid'(0) / T (da_weight DA[t] - TET[t])
    expected = 0.25 * (0.5 * parts["da"] - parts["ce_event"])
    torch.testing.assert_close(task.da_coefficients.grad.sum(), expected)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"ratio_end": 0.8}, "ratio_end"),
        ({"schedule": "cosine"}, "ratio_end"),
        ({"da_learnable": True, "da_weight": 0.0}, "da_learnable"),
        ({"da_learnable": True, "classification": "ce"}, "da_learnable"),
        ({"mag_on_events": True, "mag_weight": 0.0}, "mag_on_events"),
        ({"method": "ckd", "teacher": TeacherConfig(weight=0.0)}, r"teacher\.weight"),
        ({"distillation": True, "teacher": TeacherConfig(weight=0.0)}, r"teacher\.weight"),
        ({"consistency_weight": 1.0}, "consistency_weight"),
        ({"schedule": "loss"}, "ratio_end"),
    ],
)
def test_contradictory_settings_are_one_clear_error(settings, key):
    with pytest.raises(UserError, match=rf"^transfer\.{key}: "):
        TransferConfig(**settings)


def test_ckd_adds_the_teachers_logits_and_features_to_the_mixed_stream(data):
    config = TransferConfig(method="ckd", teacher=TeacherConfig(weight=0.5, feature_weight=2.0, temperature=2.0))
    built, pairs = streams(data, config)
    n = len(data.images)
    targets = Targets(torch.randn(n, 3), torch.randn(n, 5)).at(pairs.static_index)
    task = task_for(config)
    parts = task(*built._replace(targets=targets))["parts"]
    sliding = task_for(TransferConfig(method="sliding"))(*built)["parts"]
    assert set(parts) - set(sliding) == {"kd", "kd_features"}
    assert parts["kd"] > 0
    with pytest.raises(ValueError, match="teacher_targets"):
        task(*built)
    taught = task_for(TransferConfig(distillation=True, teacher=config.teacher))
    assert taught(*built._replace(targets=targets))["parts"]["kd"] == parts["kd"]


def domain_norm(layer, x_seq, is_event):
    """The output of a batch norm on x_seq [T, B, C, ...], with statistics of each domain, in float64."""
    x_seq, out = x_seq.double(), torch.empty_like(x_seq, dtype=torch.float64)
    weight, bias = (p.double().view(-1, 1, 1) for p in (layer.weight, layer.bias))
    for domain in (True, False):
        steps = x_seq[is_event == domain]
        var, mean = torch.var_mean(steps, dim=(0, 2, 3), correction=0)
        normal = (steps - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + layer.eps).sqrt()
        out[is_event == domain] = normal * weight + bias
    return out


def test_statistics_of_each_domain_normalise_its_steps(data):
    is_event = torch.rand(T, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    model = torch.nn.Sequential(BatchNormLIF2d(3, v_threshold=0.5), PerStep(torch.nn.BatchNorm2d(3)))
    for layer in (model[0], model[1][0]):
        torch.nn.init.uniform_(layer.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(2))
    x_seq = torch.randn(T, 5, 3, 4, 6, generator=torch.Generator().manual_seed(3)) + 5 * is_event[..., None, None, None]
    with domain_statistics(model, is_event.float()):
        spikes = model[0](x_seq)
        normal = model[1](spikes)
    expected, _ = tmkt_kernels.lif(domain_norm(model[0], x_seq, is_event), v_threshold=0.5)
    assert torch.equal(spikes.double(), expected)
    torch.testing.assert_close(normal.double(), domain_norm(model[1][0], spikes, is_event), atol=1e-5, rtol=1e-5)
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert not torch.equal(model(x_seq), normal)  # outside the block, all steps share statistics


@pytest.mark.parametrize("name", ["small", "sew_resnet18", "spikformer"])
def test_one_domain_alone_is_normalised_as_without_domains(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, size=(32, 32), neuron={"v_threshold": 0.5}).double()
    x_seq = torch.rand(T, 3, 2, 32, 32, dtype=torch.float64)
    plain = model(x_seq)
    with domain_statistics(model, torch.ones(T, 3)):
        apart = model(x_seq)
    torch.testing.assert_close(apart.features, plain.features)


def test_separate_domains_leave_the_event_stream_as_it_is(data):
    built, _ = streams(data, TransferConfig())
    parts = [task_for(TransferConfig(streams=kind))(*built)["parts"] for kind in ("separate", "domains")]
    assert parts[0]["ce_event"] == parts[1]["ce_event"]
    assert parts[0]["ce_mixed"] != parts[1]["ce_mixed"]


def test_averaged_weights_follow_the_network_with_a_decay_that_warms_up(data):
    config = TransferConfig(average=0.5, consistency_weight=1.0)
    task, other = task_for(config), task_for(config)
    assert task.scored is task.average
    assert task_for(TransferConfig()).average is None
    task.train()
    assert not task.average.training
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter += 1
    task(*streams(data, config)[0])["loss"].backward()
    assert all(parameter.grad is None for parameter in task.average.parameters())
    for step, left in ((1, 2 / 11), (2, 2 / 11 * 3 / 12), (50, 2 / 11 * 3 / 12 * 0.5)):
        task.update_average(step)
        for mean, begin in zip(task.average.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(mean, begin + 1 - left)
    assert torch.equal(task.average.backbone.before[0].bn.num_batches_tracked, torch.tensor(2))
