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
from .images import StaticSource

SIMULATORS = {
    "saccades": ("nmnist", "nmnist"),
    "drift": ("cifar10dvs", "nmnist"),
    "ncaltech101": ("ncaltech101", "ncaltech101"),
    "any": ("any", "any"),
}
"""Names of motion and camera, by `data.events.simulator`."""


class SimulatedEvents:
    """A simulated event camera in front of each image of a static set; a recording's id and index are its image's."""

    def __init__(self, images: StaticSource, config: DataConfig, seed: int) -> None:
        """Raises UserError if a setting is missing."""
        events = config.events
        if events.test_per_class is None:
            raise UserError("data.events.test_per_class: simulated recordings need a number, null was given")
        if events.sensor_size is None:
            raise UserError("data.events.sensor_size: simulated recordings need a width and a height, null was given")
        if events.test_root:
            raise UserError("data.events.test_root: simulated recordings lie in no folder; leave it empty")
        self.images, self.config, self.seed, self.sensor_size = images, config, seed, events.sensor_size

    def recordings(self) -> list[Recording]:
        classes, labels = self.images.classes, self.images.labels
        return [Recording(int(y), f"{classes[y]}/{i}", i, image=i) for i, y in enumerate(labels) if y >= 0]

    def frames(self, recording: Recording) -> np.ndarray:
        image = self.images.read(recording.index)[0].numpy()
        if self.config.events.invert:
            image = 255 - image
        seed = recording_seed(self.seed, recording.index)
        generator = torch.Generator().manual_seed(seed)
        motion, camera = SIMULATORS[self.config.events.simulator]
        shown = Motion.preset(1, motion, generator=generator), Camera.draw(1, camera, generator=generator)
        events = ev.simulate_recording(image, *shown, sensor_size=self.sensor_size, seed=seed)
        return to_frames(events, self.sensor_size, self.config)

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        events, static = self.config.events, self.config.static
        settings = {
            "simulator": [events.simulator, events.invert, ev.SIMULATOR_VERSION, self.seed],
            "images": [static.source, static.root, static.kwargs],
        }
        read = self.images.read
        return settings, [Entry(r.name, f"{crc32(read(r.index).numpy().tobytes()):08x}") for r in recordings]
