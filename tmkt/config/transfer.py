"""The keys of `transfer`: the method and its losses."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..settings import AsNumber, Number, Section, setting

TWO_STREAMS = ("bridge", "tmkt", "sliding", "ckd", "joint")
"""Methods that train on a mixed stream beside the event stream."""


class TeacherConfig(Section):
    """The image network of `ckd` and `distillation`, trained from scratch on the run's static images (torchvision)."""

    section: ClassVar[str] = "transfer.teacher"
    name: Literal["resnet18", "resnet34", "resnet50"] = setting("resnet18", "the network, by its torchvision name")
    steps: int = setting(
        200, "length of its training, in which the learning rate falls to zero as a cosine", "optimiser steps", ge=1
    )
    batch: int = setting(64, "size of its batches", "images", ge=2)
    lr: Number = setting(1e-3, "learning rate of AdamW", ge=0, le=1e36)
    temperature: Number = setting(4.0, "temperature of the softmax over the logits of both networks", ge=1)
    weight: Number = setting(1.0, "weight of the divergence of the logits", ge=0)
    feature_weight: Number = setting(0.0, "weight of 1 - CKA with the teacher's pooled features", ge=0)


class TransferConfig(Section):
    """The method and its losses (arXiv 2511.12150). Ablations: mixing=sample (no TSM), or a loss's weight 0.

    A key that the chosen method does not read is allowed, so that one file serves to compare methods.
    """

    section: ClassVar[str] = "transfer"
    method: Literal["bridge", "tmkt", "sliding", "joint", "ckd", "finetune", "static_only", "events_only"] = setting(
        "tmkt", "how images help; docs/method.md describes each method"
    )
    mixing: Literal["time_step", "sample"] = setting(
        "time_step", "method tmkt: time-step mixup (TSM), or whole samples at the same mean share"
    )
    ratio: Number = setting(0.5, "r, mean share of event steps in the mixed stream (tmkt)", ge=0, le=1)
    schedule: Literal["constant", "linear", "cosine", "power", "random", "loss"] = setting(
        "constant",
        "how r goes from ratio to ratio_end: over the training, or, with loss, as the loss of the mixed stream falls "
        "from chance to 0. random: each sample has its own r, uniform between them",
    )
    ratio_end: Annotated[float, Field(ge=0, le=1), AsNumber] | None = setting(
        None, "r at the end of the training; null, for schedule constant only"
    )
    power: Number = setting(
        3.0, "exponent of progress: in schedule power, and in the replacement of sliding and ckd", ge=0
    )
    classification: Literal["tet", "ce"] = setting(
        "tet", "cross-entropy of each time step (TET), or of the mean logits"
    )
    tet_weight: Number = setting(
        1e-3, "share of the term of TET that draws the logits to the firing threshold", ge=0, le=1
    )
    features: Literal["membrane", "spikes"] = setting("membrane", "what DA, MAG and MRP read of the last spiking layer")
    da_weight: Number = setting(0.5, "weight of domain alignment (DA)", ge=0)
    da_learnable: bool = setting(
        False, "DA of each time step is weighted by a learnt sigmoid, and TET of its events by the complement"
    )
    mag_weight: Number = setting(0.1, "weight of modality-aware guidance (MAG)", ge=0)
    mag_on_events: bool = setting(False, "the modality head sees the event stream too")
    mrp_weight: Number = setting(0.1, "weight of mixup ratio perception (MRP)", ge=0)
    mrp_loss: Literal["mse", "bce"] = setting("mse", "loss of MRP: mean squared error or binary cross-entropy")
    streams: Literal["joint", "separate", "domains"] = setting(
        "separate",
        "joint: one pass over both streams, which share batch statistics. separate: one pass each, and the running "
        "statistics that evaluation uses come from the event stream alone. domains: as separate, and the image steps "
        "and the event steps of the mixed stream are normalised by statistics of their own",
    )
    average: Number = setting(
        0.0,
        "decay per step of a moving average of the weights, which is then validated, tested and exported; 0: none",
        ge=0,
        lt=1,
    )
    consistency_weight: Number = setting(
        0.0, "weight of the divergence of the mixed stream's answers from the averaged network's on the events", ge=0
    )
    distillation: bool = setting(
        False, "the teacher of ckd also teaches the mixed stream of bridge, tmkt, sliding or joint"
    )
    teacher: TeacherConfig = TeacherConfig()

    @property
    def distils(self) -> bool:
        """Whether an image network teaches the mixed stream."""
        return self.method == "ckd" or (self.distillation and self.method in TWO_STREAMS)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.schedule == "constant" and self.ratio_end is not None:
            yield "ratio_end", "schedule constant has none; set schedule to linear, cosine, power, random or loss"
        if self.schedule != "constant" and self.ratio_end is None:
            yield "ratio_end", f"schedule {self.schedule} goes from ratio to ratio_end, which is null; give it a share"
        if self.da_learnable and self.da_weight == 0:
            yield "da_learnable", "da_weight is 0, so there is no DA to weight; raise it or leave da_learnable false"
        if self.da_learnable and self.classification != "tet":
            yield "da_learnable", "the complement weights TET's steps; set classification to tet"
        if self.mag_on_events and self.mag_weight == 0:
            yield "mag_on_events", "mag_weight is 0, so there is no modality head; raise it or leave this false"
        if self.distils and self.teacher.weight == self.teacher.feature_weight == 0:
            remedy = "use method sliding" if self.method == "ckd" else "set distillation to false"
            yield "teacher.weight", f"nothing is distilled when weight and feature_weight are 0; {remedy}"
        if self.consistency_weight > 0 and self.average == 0:
            yield "consistency_weight", "it needs averaged weights as teacher; set average, e.g. to 0.99"
