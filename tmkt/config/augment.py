"""The keys of `data.augment`: augmentations of recordings that the event-camera field uses."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from ..settings import Number, Section, setting


class AugmentConfig(Section):
    """Augmentations for every method, drawn once per sample for all of its time steps and both streams.

    A mix takes some cells (t, y, x) of a sample from a partner that is drawn for it; a sample has one mix at most. The
    crop, the flip and the rotation of both, nda and event_drop come before it.
    """

    section: ClassVar[str] = "data.augment"
    nda: bool = setting(
        False, "NDA (arXiv 2203.06145): half of the samples are mirrored, each is rolled, rotated, sheared or cut out"
    )
    event_drop: Number = setting(
        0.0,
        "EventDrop (arXiv 2106.05836): share of the samples whose recording loses a span of steps, a box, or cells at "
        "random; 0.75 is theirs. Steps of an image lose nothing",
        ge=0,
        le=1,
    )
    streams: Literal["both", "events", "images"] = setting(
        "both",
        "the steps that nda changes: both kinds, those of recordings (real or simulated), or those of images; "
        "event_drop acts on recordings, so that images excludes it",
    )
    cutmix: Number = setting(
        0.0, "CutMix (arXiv 1905.04899): share of the samples with a box of a partner, in all steps", ge=0, le=1
    )
    event_mix: Number = setting(
        0.0,
        "EventMix (arXiv 2205.11708): share of the samples with a region of a partner, bounded by a mixture of "
        "Gaussians in time and space",
        ge=0,
        le=1,
    )
    time_mix: Number = setting(
        0.0, "share of the samples that begin with steps of a partner, up to a uniform switch step", ge=0, le=1
    )
    time_mix_with: Literal["class", "any"] = setting(
        "class", "partner of time_mix: another pair of the class, or of any class, which mixes the label"
    )

    @property
    def mixes_labels(self) -> bool:
        """Whether a sample may have more than one class."""
        return self.cutmix > 0 or self.event_mix > 0 or (self.time_mix > 0 and self.time_mix_with == "any")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        total = self.cutmix + self.event_mix + self.time_mix
        if total > 1 + 1e-9:
            yield "cutmix", f"cutmix, event_mix and time_mix have {total:g} in total; a sample has one mix at most"
        if self.streams == "images" and self.event_drop > 0:
            yield "streams", "event_drop acts on recordings; set streams to both or events, or event_drop to 0"
        if self.streams != "both" and not self.nda:
            yield "streams", f"{self.streams} restricts nda, which is false; set nda to true, or streams to both"
