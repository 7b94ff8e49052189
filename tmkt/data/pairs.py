"""Class-matched pairs of a static image and an event recording, drawn balanced over classes."""

from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .augment import NO_AUGMENTATION, Augmentation, EventDrop, Mix, Nda, Transform
from .augment.geometry import Rows
from .camera import Draws, SimulatedCamera


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
        """Draw a member of each label's class uniformly: int64 [B] -> int64 [B]."""
        uniform = torch.rand(len(labels), generator=generator, dtype=torch.float64)
        return self.order[self.start[labels] + (uniform * self.size[labels]).long()]


class PairBatch(NamedTuple):
    """B pairs: rows of the static set and of the recordings, their class, each int64 [B], and their augmentation.

    Without recordings, event_index is 0. simulated: their simulated recordings; None in a run without cameras. nda,
    drop, mix: None in a run without them. With a mix, as many pairs again follow the B, the partner of each.
    """

    static_index: Tensor
    event_index: Tensor
    label: Tensor
    transform: Transform
    simulated: Draws | None = None
    nda: Nda | None = None
    drop: EventDrop | None = None
    mix: Mix | None = None

    def rows(self, part: slice) -> Rows:
        """Return the rows of some of the B pairs, followed by those of the partners with which they are mixed."""
        if self.mix is None:
            return part
        batch = len(self.mix.used)
        own = torch.arange(batch)[part]
        return torch.cat([own, batch + own[self.mix.used[own]]])

    def share(self, part: slice) -> "PairBatch":
        """Return some of the B pairs, followed by the partners with which they are mixed, and by no others."""
        rows = self.rows(part)
        return PairBatch(
            self.static_index[rows],
            self.event_index[rows],
            self.label[rows],
            self.transform.share(rows),
            None if self.simulated is None else self.simulated.share(rows),
            None if self.nda is None else self.nda.share(rows),
            None if self.drop is None else self.drop.share(rows),
            None if self.mix is None else self.mix.share(part),
        )

    def augment(self, x_seq: Tensor, shows_recording: Tensor) -> Tensor:
        """Augment each sequence of x_seq [T, B, 2, H, W], in place or not; shows_recording: bool [T, B], on the CPU."""
        x_seq = self.transform.apply(x_seq)
        for policy in (self.nda, self.drop):
            if policy is not None:
                x_seq = policy.apply(x_seq, shows_recording)
        return x_seq


class PairedData:
    """The training set: images uint8 [Ns, 1, H, W] and events, each with at least one sample of every class.

    twins int64 [Ne]: the row of the image that each recording shows, for exact pairs; None pairs by class. camera:
    simulates recordings of the images; where these take the place of all recordings, `events` may be empty.
    """

    def __init__(
        self,
        images: Tensor,
        image_labels: Tensor,
        events: EventFrames,
        num_classes: int,
        twins: Tensor | None = None,
        camera: SimulatedCamera | None = None,
    ) -> None:
        self.images, self.events, self.num_classes = images, events, num_classes
        self.twins, self.camera = twins, camera
        # Pairs are drawn on the CPU, whatever device holds the tensors, so that a seed always gives the same pairs.
        self.static_by_class = ClassIndex.of(image_labels, num_classes)
        self.events_by_class = ClassIndex.of(events.labels, num_classes)
        needed = {"static images": self.static_by_class, "recordings": self.events_by_class}
        if camera is not None and camera.replaces_recordings:
            del needed["recordings"]
        for what, index in needed.items():
            if int(index.size.min()) == 0:
                raise ValueError(f"{what}: class {int(index.size.argmin())} has none, every class needs one")

    def to(self, device: torch.device) -> "PairedData":
        """Return a copy with images and recordings on `device`."""
        moved = copy(self)
        moved.images, moved.events = self.images.to(device), self.events.to(device)
        moved.camera = None if self.camera is None else self.camera.to(device)
        return moved

    def ready(self) -> None:
        """Make what is made once before the first step: cameras that are fitted."""
        if self.camera is not None and self.camera.fitted is not None:
            self.camera.fitted()


def sample_pairs(
    data: PairedData, batch: int, generator: torch.Generator, augmentation: Augmentation = NO_AUGMENTATION
) -> PairBatch:
    """Draw `batch` pairs: classes as equally often as `batch` allows, then an image and a recording of each class.

    With `data.twins` the image is the one that the recording shows. Every pair gets a transform of `augmentation`, and
    with `data.camera` a simulated recording: of its image, or in place of its recording, of another image of the class
    unless pairs are twins. A mix draws a partner for each: another pair, of the same class, or of the class of any pair
    of the batch.
    """
    T, _, _, height, width = data.events.frames.shape
    shape = (T, height, width)
    rounds = -(-batch // data.num_classes)
    label = torch.cat([torch.randperm(data.num_classes, generator=generator) for _ in range(rounds)])[:batch]
    mix = augmentation.draw_mix(batch, shape, generator)
    if mix is not None:
        others = label[torch.randperm(batch, generator=generator)]
        label = torch.cat([label, torch.where(mix.same_class, label, others)])
    static_index = data.static_by_class.draw(label, generator)
    event_index = data.events_by_class.draw(label, generator) if len(data.events) else torch.zeros_like(label)
    if data.twins is not None:
        static_index = data.twins[event_index]
    transform, simulated = augmentation.draw(len(label), generator), None
    if data.camera is not None:
        shown = static_index if data.camera.shows_twins else data.static_by_class.draw(label, generator)
        simulated = data.camera.draw(shown, generator)
    nda, drop = augmentation.draw_policies(len(label), shape, generator)
    return PairBatch(static_index, event_index, label, transform, simulated, nda, drop, mix)
