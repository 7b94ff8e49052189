"""Static images as simulated cameras see them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ..config import Config, DataConfig
from ..progress import track
from .camera import SimulatedCamera
from .sources.images import StaticSource


def open_camera(config: Config, source: StaticSource, indices: Sequence[int] | np.ndarray) -> SimulatedCamera | None:
    """Return the cameras of a run in front of images `indices` of its static set; None for a run without them.

    Raises:
        UserError: an unknown camera or motion, a range beyond the simulator's limits, or an unreadable image.
    """
    if config.simulated is None:
        return None
    data = config.data
    assert data.sensor_size is not None
    if data.camera != "fitted":
        first = source.read(int(indices[0]))[None]
        for trial in (data, _at_end(data, 0), _at_end(data, 1)):  # before minutes of loading
            _try(SimulatedCamera(first, trial, "events", 1.0))
    images = _load_scenes(source, indices, data.sensor_size, data.events.invert)
    return SimulatedCamera(images, data, *config.simulated)


def _at_end(config: DataConfig, end: int) -> DataConfig:
    """Return the configuration with each range shrunk to one of its ends."""

    def shrunk(choice: str | dict[str, tuple[float, float]]) -> str | dict[str, tuple[float, float]]:
        return choice if isinstance(choice, str) else {name: (pair[end],) * 2 for name, pair in choice.items()}

    return config.model_copy(update={"camera": shrunk(config.camera), "motion": shrunk(config.motion)})


def _try(camera: SimulatedCamera) -> None:
    """Make the beginning of one recording."""
    one = torch.ones(1, dtype=torch.int64)
    camera.frames(camera.draw(one - 1, torch.Generator().manual_seed(0)), one)


def _load_scenes(
    source: StaticSource, indices: Sequence[int] | np.ndarray, sensor_size: tuple[int, int], invert: bool
) -> Tensor:
    """Load images `indices` for simulated cameras, uint8 [N, 1, h, w]; `invert`: their negatives.

    Images of one size that is within the sensor's stay as they are. Otherwise all get the sensor's, see `fit_scene`.
    """
    width, height = sensor_size
    images = []
    for index in track(indices, "images for the cameras"):
        image = source.read(int(index))
        within = image.shape[-2] <= height and image.shape[-1] <= width
        images.append(image if within else fit_scene(image, sensor_size))
    if len({image.shape for image in images}) > 1:
        images = [fit_scene(image, sensor_size) for image in images]
    scenes = torch.stack(images)
    return 255 - scenes if invert else scenes


def fit_scene(image: Tensor, sensor_size: tuple[int, int]) -> Tensor:
    """uint8 [1, h, w] -> uint8 [1, height, width] of a simulated sensor: as large as it fits, its edges continued.

    The simulator shows an image in the same way, so that its share of the sensor means the same for both.
    """
    width, height = sensor_size
    scale = min(width / image.shape[-1], height / image.shape[-2])
    size = [max(1, round(scale * side)) for side in image.shape[-2:]]
    shown = image if list(image.shape[-2:]) == size else F.resize(image, size, antialias=True)
    rows, columns = (
        (torch.arange(n) - (n - side) // 2).clamp(0, side - 1) for n, side in zip((height, width), size, strict=True)
    )
    return shown[:, rows][:, :, columns]
