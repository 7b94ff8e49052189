"""A run's settings: sections of keys, filled from YAML and `section.key=value` overrides.

Each key is defined in this package with its meaning, unit and range, and the page of all settings is generated from
them. Strings may contain environment variables, `${NAME}` or `${NAME:-default}`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import UserError
from ..settings import Section, setting
from ..yaml_text import parse_yaml
from .augment import AugmentConfig
from .data import DataConfig, EventsConfig, StaticConfig
from .model import ModelConfig, NeuronConfig
from .train import TrainConfig
from .transfer import TWO_STREAMS, TeacherConfig, TransferConfig

__all__ = [
    "TWO_STREAMS",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EventsConfig",
    "ModelConfig",
    "NeuronConfig",
    "StaticConfig",
    "TeacherConfig",
    "TrainConfig",
    "TransferConfig",
    "from_mapping",
    "load_config",
]


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

    @property
    def simulated(self) -> tuple[str, float] | None:
        """Place of simulated recordings in a step, as `data.bridge_place`, and their share of the pairs, if any."""
        data = self.data
        if data.events.source == "camera":
            return "events", 1.0
        if data.bridge is not None:
            return data.bridge_place, data.bridge_share
        return ("images", 1.0) if self.transfer.method == "bridge" else None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.simulated and self.data.sensor_size is None:
            yield "data.events.sensor_size", "simulated recordings need a width and a height, null was given"

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
