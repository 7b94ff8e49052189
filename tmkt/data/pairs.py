"""Class-matched pairs of a static image and an event recording, drawn balanced over the classes."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class EventFrames:
    """Recordings as frames: frames [T, N, 2, H, W] (int16 counts or float32), labels int64 [N], names class/id."""

    frames: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "EventFrames":
        return replace(self, frames=self.frames.to(device), labels=self.labels.to(device))


class ClassIndex(NamedTuple):
    """Positions of a set's samples grouped by class: class k owns order[start[k] : start[k] + size[k]]."""

    order: Tensor
    start: Tensor
    size: Tensor

    @staticmethod
    def of(labels: Tensor, num_classes: int) -> "ClassIndex":
        size = torch.bincount(labels, minlength=num_classes)
        return ClassIndex(torch.argsort(labels, stable=True), size.cumsum(0) - size, size)

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """A uniformly drawn member of each label's class: int64 [B] -> int64 [B]."""
        uniform = torch.rand(len(labels), generator=generator, dtype=torch.float64)
        return self.order[self.start[labels] + (uniform * self.size[labels]).long()]


class PairBatch(NamedTuple):
    """B pairs: rows of the static set and of the recordings, their class, and how each is augmented.

    offset int64 [B, 2] of the crop (y, x); flip bool [B]; angle float32 [B], degrees counter-clockwise.
    """

    static_index: Tensor
    event_index: Tensor
    label: Tensor
    offset: Tensor
    flip: Tensor
    angle: Tensor


class PairedData:
    """The training set. images uint8 [Ns, 1, H, W] and events, each with at least one sample of every class.

    twins int64 [Ne]: the row of the image that each recording shows, for exact pairs; None pairs by class.
    """

    def __init__(
        self, images: Tensor, image_labels: Tensor, events: EventFrames, num_classes: int, twins: Tensor | None = None
    ) -> None:
        self.images, self.events, self.num_classes, self.twins = images, events, num_classes, twins
        # Drawing happens on the CPU, whatever device the tensors move to: the same seed gives the same pairs.
        self.static_by_class = ClassIndex.of(image_labels, num_classes)
        self.events_by_class = ClassIndex.of(events.labels, num_classes)
        for what, index in {"static images": self.static_by_class, "recordings": self.events_by_class}.items():
            if int(index.size.min()) == 0:
                raise ValueError(f"{what}: class {int(index.size.argmin())} has none, every class needs one")

    def to(self, device: torch.device) -> "PairedData":
        self.images, self.events = self.images.to(device), self.events.to(device)
        return self


def sample_pairs(
    data: PairedData,
    batch: int,
    crop_padding: int,
    generator: torch.Generator,
    *,
    flip: bool = False,
    rotation: float = 0.0,
) -> PairBatch:
    """Draw `batch` pairs: classes as equally often as `batch` allows, then an image and a recording of each class.

    With `data.twins` the image is the one that the recording shows. The crop's offset is drawn in
    0..2 crop_padding for each pair (crop_padding itself is no shift), with `flip` a mirroring for half of them,
    with `rotation` an angle in +-rotation degrees.
    """
    rounds = -(-batch // data.num_classes)
    label = torch.cat([torch.randperm(data.num_classes, generator=generator) for _ in range(rounds)])[:batch]
    static_index = data.static_by_class.draw(label, generator)
    event_index = data.events_by_class.draw(label, generator)
    if data.twins is not None:
        static_index = data.twins[event_index]
    offset = torch.randint(2 * crop_padding + 1, (batch, 2), generator=generator)
    flips, angles = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch)
    if flip:
        flips = torch.rand(batch, generator=generator) < 0.5
    if rotation > 0:
        angles = (2 * torch.rand(batch, generator=generator) - 1) * rotation
    return PairBatch(static_index, event_index, label, offset, flips, angles)
