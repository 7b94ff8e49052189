"""Recordings simulated from the images of a static set."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch

from tmkt_kernels import Camera, Motion
from tmkt_kernels import events as ev

from ...config import DataConfig
from ...errors import UserError
from ...seeding import recording_seed
from ..cache import Entry
from .events import Recording, to_frames
from .images import IMAGE_VERSION, StaticSource

SIMULATORS = {
    "saccades": ("nmnist", "nmnist"),
    "drift": ("cifar10dvs", "nmnist"),
    "ncaltech101": ("ncaltech101", "ncaltech101"),
    "any": ("any", "any"),
}
"""Names of motion and camera, by `data.events.simulator`."""


DISPLAYS = {"ncaltech101": (240, 180)}
"""Pixels that an image is scaled to fit, by simulator. A recording keeps those that it covers during the whole motion.

Orchard et al. (2015) did so for N-Caltech101, whose recordings therefore differ in size."""


class SimulatedEvents:
    """A simulated event camera in front of each image of a static set; a recording's index is its image's.

    A recording has the name of its image's file, or its index. With `EventsConfig.shows_every_image` it is the same for
    every seed of a run, as recordings in files are.
    """

    def __init__(self, images: StaticSource, config: DataConfig, seed: int) -> None:
        """Raises UserError if a setting excludes simulated recordings."""
        if config.events.test_root:
            raise UserError("data.events.test_root: simulated recordings lie in no folder; leave it empty")
        self.images, self.config = images, config
        self.seed = 0 if config.events.shows_every_image else seed

    def recordings(self) -> list[Recording]:
        """Return one recording per image. Raises UserError if two images have the same class and name."""
        classes, labels, files = self.images.classes, self.images.labels, self.images.files
        digits = len(str(len(labels))) if self.config.events.split else 1  # so that the order of names is that of sets
        ids = [path.stem for path in files] if files else [f"{i:0{digits}d}" for i in range(len(labels))]
        found: dict[str, Recording] = {}
        for i, y in enumerate(labels):
            if y < 0:
                continue
            name = f"{classes[y]}/{ids[i]}"
            if name in found and files:
                raise UserError(f"{files[found[name].index]} and {files[i]}: expected one image {name}; rename one")
            found[name] = Recording(int(y), name, i, image=i)
        return list(found.values())

    def frames(self, recording: Recording) -> np.ndarray:
        image = self.images.read(recording.index)[0].numpy()
        if self.config.events.invert:
            image = 255 - image
        seed = recording_seed(self.seed, recording.index)
        generator = torch.Generator().manual_seed(seed)
        names = SIMULATORS[self.config.events.simulator]
        motion, camera = Motion.preset(1, names[0], generator=generator), Camera.draw(1, names[1], generator=generator)
        size = self.config.events.sensor_size or self._covered(image.shape, motion)
        try:
            events = ev.simulate_recording(image, motion, camera, sensor_size=size, seed=seed)
            return to_frames(events, size, self.config)
        except ValueError as error:
            raise UserError(f"simulated recording {recording.name}: {error}") from error

    def _covered(self, shape: tuple[int, ...], motion: Motion) -> tuple[int, int]:
        """Return the sensor's width and height for an image of [height, width], on its display or at its own size."""
        height, width = shape
        display = DISPLAYS.get(self.config.events.simulator)
        if display is None:
            return width, height
        scale = min(display[0] / width, display[1] / height) / float(motion.fill)
        return max(1, round(scale * width)), max(1, round(scale * height))

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        events, static, files = self.config.events, self.config.static, self.images.files
        settings = {
            "simulator": [events.simulator, events.invert, ev.SIMULATOR_VERSION, self.seed],
            "images": [static.source, static.root, static.kwargs, IMAGE_VERSION],
            "displays": DISPLAYS.get(events.simulator),
        }
        if files:
            return settings, [Entry.of(files[r.index], r.index) for r in recordings]
        read = self.images.read
        return settings, [Entry(r.name, f"{crc32(read(r.index).numpy().tobytes()):08x}") for r in recordings]
