"""The augmentation of a run, by its settings."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...config import AugmentConfig, DataConfig
from .event_drop import EventDrop
from .geometry import Transform
from .mix import Mix
from .nda import Nda


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of samples; by default none.

    padding: pixels of zeros around a sample before the random crop; flip: mirror half of the samples;
    rotation: the largest angle, in degrees; augment: the settings of the others.
    """

    padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    @staticmethod
    def of(config: DataConfig) -> "Augmentation":
        """Return the augmentation of a configuration; the default padding is a twelfth of the width."""
        padding = config.size[0] // 12 if config.crop_padding is None else config.crop_padding
        return Augmentation(padding, config.flip, config.rotation, config.augment)

    def draw(self, batch: int, generator: torch.Generator) -> Transform:
        """Draw a transform for each of `batch` samples, on the CPU."""
        offset = self.draw_offset(batch, generator)
        flip, angle = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch)
        if self.flip:
            flip = torch.rand(batch, generator=generator) < 0.5
        if self.rotation > 0:
            angle = (2 * torch.rand(batch, generator=generator) - 1) * self.rotation
        return Transform(offset, flip, angle)

    def draw_offset(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw only the offset of each crop, int64 [batch, 2] in -padding..padding."""
        return torch.randint(2 * self.padding + 1, (batch, 2), generator=generator) - self.padding

    def draw_policies(
        self, batch: int, shape: tuple[int, int, int], generator: torch.Generator
    ) -> tuple[Nda | None, EventDrop | None]:
        """Draw NDA and EventDrop for each of `batch` samples of shape (T, H, W); None where the settings have none."""
        settings = self.augment
        nda = Nda.draw(settings.streams, batch, shape[1:], generator) if settings.nda else None
        drop = EventDrop.draw(settings.event_drop, batch, shape, generator) if settings.event_drop > 0 else None
        return nda, drop

    def draw_mix(self, batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> Mix | None:
        """Draw a mix for each of `batch` samples of shape (T, H, W); None where the settings have none."""
        return Mix.draw(self.augment, batch, shape, generator)


NO_AUGMENTATION = Augmentation()
