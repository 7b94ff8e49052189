"""Simulated recordings in the sequences of a step: their place, their share, and the same numbers for every share."""

import pytest
import torch

from tmkt.analysis.example_batch import example_batch
from tmkt.analysis.grid import make_grid
from tmkt.cli import main
from tmkt.config import TransferConfig
from tmkt.data import Augmentation, prepare, sample_pairs
from tmkt.errors import UserError
from tmkt.method.simulated import draw_spans
from tmkt.method.transfer import build_streams
from tmkt.training.trainer import Trainer, train

T, B, SCALE = 4, 24, 2.0
PLACES = ("events", "images", "between")


def step(config, data, share=slice(None), seed=0, **transfer):
    """Return the pairs of a step, their recordings' frames, and the streams."""
    generator = torch.Generator().manual_seed(seed)
    pairs = sample_pairs(data, B, generator, Augmentation(padding=1) if share != slice(None) else Augmentation())
    built = build_streams(
        TransferConfig(**transfer),
        data,
        pairs,
        progress=0.5,
        event_scale=SCALE,
        generator=generator,
        share=share,
    )
    return pairs, built


@pytest.fixture(params=PLACES)
def placed(request, tiny):
    """(place, training set) with simulated recordings for half of the pairs."""
    return request.param, prepare(tiny.replace(data__bridge="camera", data__bridge_place=request.param)).train


def expected(place, used, switch, simulated, image, recording, stream):
    """Return a sequence by the definition, and the steps at which it may begin to show the simulated recording."""
    steps = torch.arange(T)[:, None, None, None]
    plain = torch.where(steps < switch, image, recording)
    if not used or (place == "between" and stream == "main"):
        return [plain]
    if place == "events":
        return [torch.where(steps < switch, image, simulated)]
    if place == "images":
        return [torch.where(steps < switch, simulated, recording)]
    return [torch.where((first <= steps) & (steps < switch), simulated, plain) for first in range(switch + 1)]


def test_each_place_shows_what_it_says(placed):
    place, data = placed
    pairs, built = step(None, data)
    draws = pairs.simulated
    assert 0 < draws.used.sum() < B
    simulated = data.camera.frames(draws, torch.full((B,), T)).float() * SCALE
    found = []
    for b in range(B):
        image = (data.images[pairs.static_index[b]].float() * (1 / 255)).expand(2, -1, -1)
        recording = data.events.frames[:, pairs.event_index[b]].float() * SCALE
        for stream, x_seq, switch in (("main", built.main, 0), ("mixed", built.mixed, int(built.switch_step[b]))):
            choices = expected(place, bool(draws.used[b]), switch, simulated[:, b], image, recording, stream)
            matches = [i for i, choice in enumerate(choices) if torch.allclose(x_seq[:, b], choice, atol=1e-6)]
            assert matches, (b, stream)
            found.append((stream, matches[0], len(choices)))
    between = {first for stream, first, choices in found if stream == "mixed" and choices > 1}
    assert (len(between) > 1) == (place == "between")


def test_a_share_of_the_batch_is_the_same_part_of_the_whole(placed):
    _, data = placed
    _, whole = step(None, data, share=slice(0, B))
    for part in (slice(0, 5), slice(5, 6), slice(6, B)):
        _, own = step(None, data, share=part)
        assert torch.equal(own.main, whole.main[:, part])
        assert torch.equal(own.mixed, whole.mixed[:, part])
        assert torch.equal(own.switch_step, whole.switch_step[part])


def test_every_step_draws_new_recordings_and_a_seed_the_same(placed):
    _, data = placed
    first, again, other = (step(None, data, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first.mixed, again.mixed)
    assert not torch.equal(first.mixed, other.mixed)


def test_without_recordings_the_cameras_are_the_event_stream(tiny):
    settings = {"data__bridge": "camera", "data__bridge_place": "events", "data__bridge_share": 1.0}
    alone = prepare(tiny.replace(**settings, data__events__train_per_class=0)).train
    both = prepare(tiny.replace(**settings)).train
    pairs, built = step(None, alone)
    simulated = alone.camera.frames(pairs.simulated, torch.full((B,), T)).float() * SCALE
    assert torch.equal(built.main, simulated)
    for b, switch in enumerate(built.switch_step.tolist()):
        assert torch.equal(built.mixed[switch:, b], simulated[switch:, b])
    assert len(both.events) == 9  # and nothing of them is shown
    pairs, built = step(None, both)
    assert torch.equal(built.main, both.camera.frames(pairs.simulated, torch.full((B,), T)).float() * SCALE)


@pytest.mark.parametrize(
    ("method", "place", "main", "mixed"),
    [
        ("events_only", "events", T, None),
        ("events_only", "images", 0, None),
        ("static_only", "images", T, None),
        ("static_only", "events", 0, None),
        ("static_only", "between", 0, None),
        ("joint", "images", 0, T),
        ("joint", "events", T, 0),
        ("joint", "between", 0, T),
    ],
)
def test_methods_of_whole_sequences(tiny, method, place, main, mixed):
    """The number of frames that each stream takes of a simulated recording; between, T at most."""
    data = prepare(tiny.replace(data__bridge="camera", data__bridge_place=place, data__bridge_share=1.0)).train
    pairs, built = step(None, data, method=method)
    simulated = data.camera.frames(pairs.simulated, torch.full((B,), T)).float() * SCALE
    shown = [(x_seq == simulated).all(4).all(3).all(2) for x_seq in (built.main, built.mixed) if x_seq is not None]
    assert shown[0].sum(0).tolist() == [main] * B
    assert (len(shown) == 1) == (mixed is None)
    last = shown[-1].sum(0)
    assert set(last.tolist()) <= (set(range(T + 1)) if place == "between" else {main if mixed is None else mixed})


def test_bridge_is_joint_training_with_a_simulated_recording_of_every_image(tiny):
    settings = {"data__bridge": "camera", "data__bridge_place": "images", "data__bridge_share": 1.0}
    joint = prepare(tiny.replace(transfer__method="joint", **settings)).train
    bridge = prepare(tiny.replace(transfer__method="bridge")).train
    ours, theirs = step(None, bridge, method="bridge")[1], step(None, joint, method="joint")[1]
    assert torch.equal(ours.main, theirs.main)
    assert torch.equal(ours.mixed, theirs.mixed)


def test_data_of_another_method_is_refused(tiny):
    for made, used in (("bridge", "joint"), ("joint", "bridge")):
        with pytest.raises(ValueError, match=r"data: expected .* simulated recordings"):
            Trainer(tiny.replace(transfer__method=used), prepare(tiny.replace(transfer__method=made)))


def test_spans_between_are_uniform_up_to_the_switch_step():
    n = 30_000
    mixed = torch.full((n,), 3)
    used = torch.arange(n) % 2 == 0
    spans = draw_spans("between", used, torch.zeros(n).long(), mixed, T, torch.Generator().manual_seed(0))
    length = (spans.end - spans.begin)[1]
    assert not length[~used].any()
    counts = torch.bincount(length[used], minlength=T)
    assert (counts.double() / used.sum() - 0.25).abs().max() < 0.02
    assert torch.equal(spans.begin[0], spans.end[0])


def test_the_command_trains_without_recordings_and_evaluates(tiny, recordings, tmp_path, capsys):
    settings = {"source": "camera", "root": "", "test_root": str(recordings)}
    config = tiny.replace(**{f"data__events__{key}": value for key, value in settings.items()})
    path = tmp_path / "camera.yaml"
    path.write_text(config.dump())
    assert main(["train", str(path), "data.motion={amplitude: [1, 2]}"]) == 0
    told = capsys.readouterr()
    assert "no recordings to train on, 6 to validate, 18 to test" in told.err
    assert "in place of 100% of the recordings; camera any, motion of own ranges" in told.err
    trained = told.out.splitlines()[-1]
    assert main(["eval", config.out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained
    assert main(["eval", config.out, "--events", str(recordings)]) == 0
    told = capsys.readouterr()
    assert "6 of these 24 recordings are ones that it was validated on" in told.err


def test_other_commands_know_runs_of_the_camera(tiny, recordings, tmp_path, capsys):
    settings = {"source": "camera", "root": "", "test_root": str(recordings)}
    config = tiny.replace(**{f"data__events__{key}": value for key, value in settings.items()})
    path = tmp_path / "camera.yaml"
    path.write_text(config.dump())
    assert main(["data", "check", str(recordings), "--config", str(path)]) == 0
    assert main(["data", "prepare", str(path), f"data.cache={tmp_path / 'cache'}"]) == 0
    assert "0 train, 6 validation, 18 test recordings" in capsys.readouterr().out
    train(config)
    assert main(["diagnose", config.out, "--draws", "2", "--samples", "9"]) == 0
    assert "gradient variance" in capsys.readouterr().out
    (cell,) = make_grid(path, [], methods=["tmkt"], seeds=[1], per_class=[], out=tmp_path / "grid")
    assert cell.per_class == cell.config.data.events.train_per_class == 0
    with pytest.raises(UserError, match="trains on no recordings; leave it out"):
        make_grid(path, [], methods=["tmkt"], seeds=[1], per_class=[3], out=tmp_path / "grid")


def test_pictures_show_the_bridge(tiny):
    config = tiny.replace(data__bridge="camera", data__bridge_share=1.0)
    mixed, switch_step, *_ = example_batch(config, prepare(config), progress=0.0)
    assert (switch_step > 1).sum() > 1
    for b, switch in enumerate(switch_step.tolist()):
        moves = (mixed[1:switch, b] != mixed[: max(switch - 1, 0), b]).flatten(1).any(1)  # which an image does not
        assert moves.all()
