"""Simulated recordings of the static images, drawn in every step: settings, data and draws."""

import numpy as np
import pytest
import torch

from tmkt.config import load_config
from tmkt.data import prepare, sample_pairs
from tmkt.data.scenes import fit_scene, open_camera
from tmkt.data.sources.images import StaticSource
from tmkt.data.sources.simulated import SIMULATORS, SimulatedEvents
from tmkt.errors import UserError
from tmkt.seeding import recording_seed
from tmkt_kernels import events as ev
from tmkt_kernels import simulate_frames

T = 4
ALONE = {"data__bridge": "camera", "data__bridge_place": "events", "data__bridge_share": 1.0}


@pytest.fixture
def bridged(tiny):
    return tiny.replace(data__bridge="camera")


@pytest.fixture
def camera_only(tiny, recordings):
    return tiny.replace(data__events__source="camera", data__events__root="", data__events__test_root=str(recordings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.events.source=camera"], "data.events.test_root: source camera needs a folder"),
        (
            ["data.events.source=camera", "data.events.test_root=a", "data.events.root=b"],
            "data.events.root: source",
        ),
        (["data.events.source=camera", "data.events.test_root=a", "data.events.split=s"], "data.events.split: source"),
        (["data.events.source=camera", "data.events.test_root=a", "data.bridge=camera"], "data.bridge: events.source"),
        (["data.events.train_per_class=0"], "data.events.train_per_class: 0 recordings need simulated ones"),
        (["data.events.train_per_class=0", "data.bridge=camera"], "data.events.train_per_class: 0 recordings need"),
        (["data.bridge=camera", "data.events.sensor_size=null"], "data.events.sensor_size: simulated recordings need"),
        (["transfer.method=bridge", "data.events.sensor_size=null"], "data.events.sensor_size: simulated recordings"),
        (["data.bridge=v2e"], "data.bridge: expected camera or null, got 'v2e'"),
        (["data.bridge_share=1.5"], r"data.bridge_share: expected a number in \[0, 1\]"),
        (["data.bridge_place=middle"], "data.bridge_place: expected one of events, images, between; got 'middle'"),
        (["data.camera=3"], "data.camera: expected a text or a mapping"),
        (["data.camera={threshold: [1]}"], "data.camera: expected a text or a mapping"),
    ],
)
def test_contradictions_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        load_config(None, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__camera": "davis"}, "data.camera: ranges: expected one of any, nmnist, ncaltech101.*got 'davis'"),
        ({"data__motion": "walk"}, "data.motion: name: expected one of any, nmnist.*got 'walk'"),
        ({"data__camera": {"thresold": [0.1, 0.2]}}, "data.camera: ranges: expected fields of .*got thresold"),
        (
            {"data__camera": {"threshold": [0.2, 0.1]}},
            "data.camera: ranges: expected .* of threshold",
        ),
        (
            {"data__camera": {"threshold": [0.0, 0.1]}},
            "data.camera: threshold: expected .* of 0.01 or more",
        ),
        ({"data__camera": {"noise_on_share": [0.5, 2.0]}}, "data.camera: noise_on_share: expected .* from 0 to 1"),
        ({"data__camera": {"hot_share": [0, 0.6], "dead_share": [0, 0.6]}}, r"data.camera: hot_share \+ dead_share"),
        ({"data__motion": {"fill": [0.0, 1.0]}}, "data.motion: fill: expected finite numbers, positive"),
        ({"data__motion": {"leg_us": [1e3, 1e12]}}, "data.camera and data.motion: the simulation lasts"),
        (
            {"data__motion": {"amplitude": [1.0, 1e9]}},
            "data.camera and data.motion: a step of the motion",
        ),
    ],
)
def test_a_range_beyond_the_simulator_is_named_before_the_training(bridged, settings, message):
    with pytest.raises(UserError, match=message):
        prepare(bridged.replace(**settings))


def test_a_run_without_cameras_draws_what_it_drew_before(tiny, bridged):
    plain, more = (
        sample_pairs(prepare(config).train, 50, torch.Generator().manual_seed(0)) for config in (tiny, bridged)
    )
    assert plain.simulated is None
    assert more.simulated is not None
    for name in ("static_index", "event_index", "label"):
        assert torch.equal(getattr(plain, name), getattr(more, name))


def test_a_share_of_the_pairs_has_recordings_of_their_own_images(bridged):
    data = prepare(bridged.replace(data__bridge_share=0.25)).train
    pairs = sample_pairs(data, 6000, torch.Generator().manual_seed(0))
    assert pairs.simulated.used.float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(pairs.simulated.image_index, pairs.static_index)
    assert len(pairs.simulated.seed.unique()) == 6000
    assert len(pairs.simulated.camera.threshold.unique()) > 5900  # each has a camera of its own
    none = prepare(bridged.replace(data__bridge_share=0.0)).train.camera
    assert not none.draw(torch.zeros(99).long(), torch.Generator().manual_seed(0)).used.any()


def test_in_place_of_a_recording_it_shows_another_image_of_the_class_unless_pairs_are_twins(tiny):
    config = tiny.replace(**ALONE, data__events__train_per_class=0)
    for pairing, same in (("class", 0.1), ("twin", 1.0)):
        data = prepare(config.replace(data__pairing=pairing)).train
        pairs = sample_pairs(data, 3000, torch.Generator().manual_seed(0))
        shown = [set(pairs.simulated.image_index[pairs.label == label].tolist()) for label in range(3)]
        assert sum(len(images) for images in shown) == len(set.union(*shown)) == 30  # each in its own class
        found = (pairs.simulated.image_index == pairs.static_index).float().mean()
        assert found == pytest.approx(same, abs=0.05)


def test_frames_are_those_of_the_operator_and_only_as_many_as_are_needed(bridged):
    camera = prepare(bridged).train.camera
    draws = camera.draw(torch.arange(6), torch.Generator().manual_seed(0))
    whole = simulate_frames(
        camera.images, draws.image_index, draws.motion, draws.camera, T, sensor_size=(16, 16), seed=draws.seed
    )
    assert (whole.sum((0, 2, 3, 4)) > 20).all()
    assert torch.equal(camera.frames(draws, torch.full((6,), T)), whole)
    needed = torch.tensor([0, 1, 2, 3, 4, 0])
    frames = camera.frames(draws, needed)
    for b, n in enumerate(needed.tolist()):
        assert torch.equal(frames[:n, b], whole[:n, b])
        assert not frames[n:, b].any()
    assert not camera.frames(draws, torch.zeros(6, dtype=torch.int64)).any()
    assert torch.equal(camera.frames(draws.share(slice(2, 5)), needed[2:5]), frames[:, 2:5])


def test_frames_of_another_size_than_the_sensor(bridged):
    config = bridged.replace(data__size=[12, 10])
    camera = prepare(config).train.camera
    draws = camera.draw(torch.arange(3), torch.Generator().manual_seed(0))
    frames = camera.frames(draws, torch.full((3,), T))
    assert (frames.shape, frames.dtype) == ((T, 3, 2, 10, 12), torch.float32)
    assert camera.images.shape == (30, 1, 16, 16)  # not resized to the network's size


def test_a_window_is_the_cameras_sensor(tiny):
    config = tiny.replace(data__bridge="camera", data__events__window=[4, 0, 8, 16], data__size=[8, 16])
    camera = prepare(config).train.camera
    draws = camera.draw(torch.arange(2), torch.Generator().manual_seed(0))
    assert camera.frames(draws, torch.full((2,), T)).shape == (T, 2, 2, 16, 8)


def test_source_camera_has_no_recordings_to_train_on(camera_only):
    data = prepare(camera_only)
    assert len(data.train.events) == 0
    assert data.record["train"] == []
    assert (len(data.validation), len(data.test)) == (6, 18)
    assert set(data.validation.names).isdisjoint(data.test.names)
    assert data.train.camera.replaces_recordings
    pairs = sample_pairs(data.train, 8, torch.Generator().manual_seed(0))
    assert pairs.simulated.used.all()


def test_source_camera_is_a_folder_without_recordings_to_train_on(camera_only, tiny):
    folder = prepare(tiny.replace(**ALONE, data__events__train_per_class=0))
    camera = prepare(camera_only)
    assert folder.record == camera.record
    assert torch.equal(folder.test.frames, camera.test.frames)


def test_source_camera_leaves_out_the_images_that_test_recordings_show(shared_data):
    settings = [
        "data.static.source=MNIST",
        f"data.static.root={shared_data}",
        "data.static.exclude_twins=nmnist",
        "data.static.per_class=50",
        "data.events.source=camera",
        f"data.events.test_root={shared_data / 'N-MNIST-small/Train'}",
        "data.events.validation_per_class=3",
        "data.events.test_per_class=4",
    ]
    data = prepare(load_config(None, settings))
    shown = {int(name.split("/")[1]) - 1 for part in ("validation", "test") for name in data.record[part]}
    assert len(shown) == 70
    assert shown.isdisjoint(data.record["static_images"])


def test_the_identity_holds_what_the_cameras_see_and_the_simulator(bridged, tiny):
    plain, record = prepare(tiny).record, prepare(bridged).record
    assert record["simulator"] == ev.SIMULATOR_VERSION
    assert "simulator" not in plain
    inverted = prepare(bridged.replace(data__events__invert=True)).record
    assert inverted["digests"]["static_images"] != record["digests"]["static_images"]
    assert inverted["digests"]["train"] == record["digests"]["train"]


def images_of(*sizes):
    """Images of these (width, height), a bright disc on grey."""

    def read(i):
        width, height = sizes[i]
        x, y = torch.meshgrid(torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy")
        return (60 + 150 * (x * x + y * y < 0.4))[None].to(torch.uint8)

    return StaticSource(np.zeros(len(sizes), np.int64), ("disc",), read)


def scenes(sensor_size, *sizes, **more):
    settings = [f"data.events.{key}={str(value).lower()}" for key, value in more.items()]
    size = f"data.events.sensor_size={list(sensor_size)}"
    source = images_of(*sizes)
    config = load_config(None, ["transfer.method=bridge", size, *settings])
    return open_camera(config, source, range(len(sizes))).images, source


def test_images_of_one_size_within_the_sensor_stay_as_they_are():
    shown, source = scenes((34, 34), (28, 28), (28, 28))
    assert torch.equal(shown[1], source.read(1))
    negative, _ = scenes((34, 34), (28, 28), (28, 28), invert=True)
    assert torch.equal(negative, 255 - shown)


@pytest.mark.parametrize("sizes", [((40, 20), (20, 20)), ((60, 40), (60, 40)), ((10, 20), (20, 10))])
def test_other_images_get_the_sensors_size_with_their_shape_and_edges_continued(sizes):
    shown, source = scenes((32, 24), *sizes)
    assert shown.shape == (len(sizes), 1, 24, 32)
    for image, (width, height) in zip(shown, sizes, strict=True):
        scale = min(32 / width, 24 / height)
        margins = (32 - round(scale * width)) // 2, (24 - round(scale * height)) // 2
        disc = image[0] > 135
        box = [disc.any(dim).nonzero()[[0, -1], 0].tolist() for dim in (0, 1)]
        extents = [high - low + 1 for low, high in box]
        expected = [round(0.4**0.5 * scale * side) for side in (width, height)]
        assert extents == pytest.approx(expected, abs=2)
        assert (image[0, :, : margins[0] + 1] == 60).all()
        assert (image[0, : margins[1] + 1] == 60).all()
    assert torch.equal(shown[0], fit_scene(source.read(0), (32, 24)))


def test_a_fitted_image_records_as_the_image_itself(tiny):
    config = tiny.replace(data__bridge="camera", data__camera="nmnist", data__motion="nmnist")
    source = images_of((60, 30))
    camera = open_camera(config, source, [0])
    draws = camera.draw(torch.zeros(1, dtype=torch.int64), torch.Generator().manual_seed(0))
    fitted = camera.frames(draws, torch.full((1,), T)).flatten().double()
    itself = simulate_frames(
        source.read(0)[None], None, draws.motion, draws.camera, T, sensor_size=(16, 16), seed=draws.seed
    ).flatten()
    assert torch.corrcoef(torch.stack([fitted, itself.double()]))[0, 1] > 0.9


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_simulated_sets_by_name(simulator):
    settings = ["data.static.source=sklearn_digits", "data.events.source=simulated", "data.events.test_per_class=1"]
    config = load_config(None, [*settings, f"data.events.simulator={simulator}", "data.time_steps=3"])
    source = images_of((28, 28), (28, 28))
    events = SimulatedEvents(source, config.data, seed=0)
    first, second = (events.frames(recording) for recording in events.recordings())
    assert first.sum() > 100
    assert not np.array_equal(first, second)
    assert np.array_equal(first, events.frames(events.recordings()[0]))


def test_saccades_are_those_of_the_simulator():
    config = load_config(None, ["data.events.source=simulated", "data.events.test_per_class=1"])
    source = images_of((28, 28))
    events = SimulatedEvents(source, config.data, seed=5)
    expected = ev.simulate_saccades(source.read(0)[0].numpy(), sensor_size=(34, 34), seed=recording_seed(5, 0))
    assert np.array_equal(events.frames(events.recordings()[0]), ev.to_frames(expected, 10, (34, 34)))
