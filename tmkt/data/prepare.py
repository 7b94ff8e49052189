"""From a configuration to tensors: split, exclusion of leaks, loading. All randomness comes from the seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tmkt_kernels.events import SIMULATOR_VERSION

from ..config import Config
from ..errors import UserError
from ..progress import count, say
from .bundled import ClassMap, load_class_map
from .fitted_cameras import FittedCameras
from .fitting import MOST, STEPS, fit_cameras
from .loading import load_events, load_images
from .pairs import ClassIndex, EventFrames, PairedData
from .scenes import open_camera
from .sources.events import EventSource, Recording
from .sources.images import StaticSource
from .sources.opening import as_recorded, has_images, open_events, open_folder, open_pair
from .splits import Split, choose_images, draw_test_recordings, split_recordings

PARTS = (*Split._fields, "static_images")  # keys of a record


@dataclass(frozen=True)
class RunData:
    """All data of a run.

    `record` is the content of split.json: the recordings and images of each part (`PARTS`), and under `digests`, in the
    same order, the digest of each one's content.
    """

    classes: tuple[str, ...]
    train: PairedData
    validation: EventFrames
    test: EventFrames
    record: dict[str, Any]

    def check_made_for(self, config: Config) -> None:
        """Raise ValueError if `config` simulates recordings in each step and the data has no camera, or conversely."""
        if (self.train.camera is None) != (config.simulated is None):
            expected = "none" if config.simulated is None else "some"
            raise ValueError(f"data: expected {expected} of simulated recordings; prepare it for this configuration")


class _Opened(NamedTuple):
    """The images and recordings of a run, before they are loaded; sources: of each part of the split."""

    config: Config  # as recorded
    images: StaticSource
    classes: ClassMap
    sources: dict[str, EventSource]
    split: Split

    @staticmethod
    def of(config: Config) -> "_Opened":
        images, classes = open_pair(config)
        recorded = as_recorded(config)
        events = open_events(recorded, images, classes)
        recordings = events.recordings()
        split = split_recordings(recordings, images.classes, recorded.data.events, config.seed)
        sources = dict.fromkeys(Split._fields, events)
        if recorded.data.events.has_test_set:
            sources["test"] = open_events(recorded, images, classes, test=True)
            split = split._replace(test=draw_test_recordings(sources["test"].recordings(), images.classes, config))
        return _Opened(recorded, images, classes, sources, split)


def load_test(config: Config) -> EventFrames:
    """Load the test recordings of `config` alone, as `prepare` does."""
    opened = _Opened.of(config)
    return load_events(opened.sources["test"], opened.split.test, opened.config.data, "test recordings")


def prepare(config: Config) -> RunData:
    """Open, split and load the data of `config`. Raises UserError, naming the file and its fault."""
    opened = _Opened.of(config)
    images, split = opened.images, opened.split
    paired = has_images(config)
    index, twins = choose_images(config, images, split) if paired else (np.arange(len(images.labels)), None)
    data = opened.config.data
    frames = {
        part: load_events(source, getattr(split, part), data, f"{part} recordings")
        for part, source in opened.sources.items()
    }
    static = load_images(images, index, data.size, data.static.fit, "static images", data.cache)
    camera = open_camera(config, images, index)
    labels = torch.from_numpy(images.labels[index])
    if camera is not None and config.data.camera == "fitted":
        camera = replace(camera, fitted=_fitted(config, images, opened.classes, split.train, camera.images, labels))
    digests_of_images = digests(static[None]) if paired else []
    if camera is not None:  # what it sees may differ where what the network sees does not
        digests_of_images = [a + b for a, b in zip(digests_of_images, digests(camera.images[None]), strict=True)]
    record = {
        "seed": config.seed,
        "classes": list(images.classes),
        **{part: list(events.names) for part, events in frames.items()},
        "static_images": index.tolist() if paired else [],
        "digests": {
            **{part: digests(events.frames) for part, events in frames.items()},
            "static_images": digests_of_images,
        },
        **({} if camera is None else {"simulator": SIMULATOR_VERSION}),
    }
    train = PairedData(static, labels, frames["train"], len(images.classes), twins, camera)
    return RunData(images.classes, train, frames["validation"], frames["test"], record)


def _fitted(
    config: Config,
    images: StaticSource,
    classes: ClassMap,
    recordings: Sequence[Recording],
    scenes: torch.Tensor,
    labels: torch.Tensor,
) -> Callable[[], FittedCameras]:
    """Return a function that fits cameras to training recordings, once."""

    @cache
    def fit() -> FittedCameras:
        fine = config.replace(data__time_steps=STEPS, data__cache=None)
        source = open_events(fine, images, classes)
        some = recordings[:: -(-len(recordings) // MOST)]  # which lie class by class
        frames = load_events(source, some, fine.data, "recordings for the fit of the cameras")
        assert config.data.sensor_size is not None
        index = ClassIndex.of(labels, len(images.classes))
        found, distance = fit_cameras(frames, scenes, index, config.data.sensor_size, config.seed)
        say(f"cameras fitted to {count(len(frames), 'recording')}; distance of the mean recordings {distance:.3f}")
        return found

    return fit


def digests(frames: torch.Tensor) -> list[str]:
    """Frames [T, N, ...] -> a digest of each of the N, 16 hexadecimal digits, of the values that the network gets."""
    return [
        sha256(one.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()[:16] for one in frames.unbind(1)
    ]


def fill_cache(config: Config) -> str:
    """Prepare the data of `config` into `data.cache`; return a line that describes the content."""
    if config.data.cache is None:
        raise UserError("data.cache: null was given; name the folder that shall hold the frames, data.cache=DIR")
    data = prepare(config)
    counts = f"{len(data.train.events)} train, {len(data.validation)} validation, {len(data.test)} test recordings"
    megabytes = sum(path.stat().st_size for path in Path(config.data.cache).glob("*.npy")) / 1e6
    return f"{counts}; {config.data.cache} holds {megabytes:.1f} MB"


def load_folder(config: Config, classes: tuple[str, ...], root: str | Path) -> EventFrames:
    """Load recordings <class>/<id>.<ext> under `root`, some or all of `classes`, for evaluation."""
    mapped = load_class_map(config.data.classes) if config.data.classes else ClassMap.same(classes)
    events = open_folder(root, mapped, config.data, every_class=False)
    return load_events(events, events.recordings(), config.data, "recordings")
