"""Simulated recordings of the static images, new ones in every step, made on the device that holds the images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tmkt_kernels import Camera, Motion, simulate_frames

from ..config import DataConfig
from ..errors import UserError
from .augment.geometry import Rows
from .fitted_cameras import FittedCameras


class Draws(NamedTuple):
    """A simulated recording for each of B pairs, before it is made.

    used: bool [B], whether the pair has one. image_index: int64 [B], the static image that it shows. seed: int64 [B],
    random bits of its thresholds and noise.
    """

    used: Tensor
    image_index: Tensor
    motion: Motion
    camera: Camera
    seed: Tensor

    def share(self, rows: Rows) -> "Draws":
        """Return those of some of the pairs."""
        used, image_index, motion, camera, seed = self
        return Draws(used[rows], image_index[rows], motion[rows], camera[rows], seed[rows])


@dataclass(frozen=True)
class SimulatedCamera:
    """Cameras in front of the static images, a new one for each recording.

    images: uint8 [N, 1, h, w], the static images as the cameras see them, see `scenes.py`. place and share: as
    `data.bridge_place` and `data.bridge_share`. fitted: of `data.camera` fitted, which makes the fit at its first call.
    """

    images: Tensor
    config: DataConfig
    place: str
    share: float
    fitted: Callable[[], FittedCameras] | None = None

    @property
    def replaces_recordings(self) -> bool:
        """Whether no other recordings are needed."""
        return self.place == "events" and self.share == 1

    @property
    def shows_twins(self) -> bool:
        """Whether a recording shows its pair's own image, rather than another one of the class."""
        return self.place != "events" or self.config.pairing == "twin"

    def to(self, device: torch.device) -> "SimulatedCamera":
        return replace(self, images=self.images.to(device))

    def draw(self, image_index: Tensor, generator: torch.Generator) -> Draws:
        """Draw a recording of each of B images: int64 [B], on the CPU."""
        batch = len(image_index)
        used = torch.rand(batch, dtype=torch.float64, generator=generator) < self.share
        seed = torch.randint(-(2**63), 2**63 - 1, (batch,), generator=generator)
        return Draws(used, image_index, *self._draw(batch, generator), seed)

    def _draw(self, batch: int, generator: torch.Generator) -> tuple[Motion, Camera]:
        if self.fitted is not None:
            return self.fitted().draw(batch, generator)
        motion, ranges = self.config.motion, self.config.camera
        try:
            motions = (
                Motion.preset(batch, motion, generator=generator)
                if isinstance(motion, str)
                else Motion.draw(batch, motion, generator=generator)
            )
        except ValueError as error:
            raise UserError(f"data.motion: {error}") from error
        try:
            return motions, Camera.draw(batch, ranges, generator=generator)
        except ValueError as error:
            raise UserError(f"data.camera: {error}") from error

    def frames(self, draws: Draws, n_frames: Tensor) -> Tensor:
        """Return [T, B, 2, H, W] on the device of the images: the first `n_frames` int64 [B] of each, zeros after them.

        int16 counts, or float32 if the frames have another size than the sensor. Raises UserError for a recording that
        is beyond the simulator's limits.
        """
        config, rows = self.config, n_frames.nonzero()[:, 0]
        assert config.sensor_size is not None
        try:
            made = simulate_frames(
                self.images,
                draws.image_index[rows].to(self.images.device),
                draws.motion[rows],
                draws.camera[rows],
                config.time_steps,
                None if config.size == config.sensor_size else config.size,
                sensor_size=config.sensor_size,
                n_frames=n_frames[rows],
                seed=draws.seed[rows],
            )
        except ValueError as error:
            raise UserError(f"data.camera and data.motion: {error}") from error
        if len(rows) == len(n_frames):
            return made
        frames = made.new_zeros(made.shape[0], len(n_frames), *made.shape[2:])
        frames[:, rows.to(frames.device)] = made
        return frames
