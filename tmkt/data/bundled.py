"""Class maps and split protocols: files of this package by name, or the user's own by path."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ..errors import UserError
from ..settings import Number, Section
from ..yaml_text import parse_yaml


@dataclass(frozen=True)
class ClassMap:
    """The classes of a pair, and their names on each side. A name mapped to None is left out on purpose."""

    names: tuple[str, ...]
    static: dict[str, str | None]
    events: dict[str, str | None]

    @staticmethod
    def same(names: Sequence[str]) -> "ClassMap":
        """Return a map with the same names on both sides."""
        own: dict[str, str | None] = {name: name for name in names}
        return ClassMap(tuple(names), own, own)


class Protocol(Section):
    """A published split: the shares of each class for training and for testing; the rest is unused.

    With order "listed" there are no shares, because lists that come with the set name the recordings.
    """

    order: Literal["name", "random", "listed"]
    train: Number = Field(0, gt=0, lt=1)  # pydantic does not check a default
    test: Number = Field(0, gt=0, lt=1)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        for share in ("train", "test"):
            if self.order == "listed" and getattr(self, share):
                yield share, "order listed takes no share, because the set's lists decide"
            if self.order != "listed" and not getattr(self, share):
                yield share, "is missing; expected a number in (0, 1)"

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.train + self.test > 1 + 1e-9:
            raise ValueError(f"train + test is {self.train + self.test:g}, more than there is")
        return self


def load_class_map(name: str) -> ClassMap:
    """Load the class map `name` (classes/<name>.csv of this package) or the CSV file at that path.

    Columns class, static, events; a line without a class names what is left out; lines that begin with # are comments.
    Several lines may name the same class. Raises UserError, naming the wrong line.
    """
    lines = [line for line in _read("data.classes", name, "classes", ".csv").splitlines() if line[:1] not in ("#", "")]
    rows = list(csv.reader(lines))
    if not rows or rows[0] != ["class", "static", "events"]:
        raise UserError(f"data.classes: {name}: expected a first line `class,static,events`, got {lines[:1]}")
    names: dict[str, None] = {}
    sides: tuple[dict[str, str | None], dict[str, str | None]] = {}, {}
    for row in rows[1:]:
        if len(row) != 3 or not (row[1] or row[2]):
            raise UserError(f"data.classes: {name}: expected class,static,events; got {','.join(row)!r}")
        if row[0]:
            names[row[0]] = None
        for side, folder in zip(sides, row[1:], strict=True):
            if folder and side.setdefault(folder, row[0] or None) != (row[0] or None):
                raise UserError(f"data.classes: {name}: {folder!r} is mapped twice, to {side[folder]} and {row[0]}")
    return ClassMap(tuple(names), *sides)


def load_protocol(name: str) -> Protocol:
    """Load the split protocol `name` (protocols/<name>.yaml of this package) or the YAML file at that path.

    Raises UserError, naming the fault.
    """
    subject = f"data.events.split: {name}"
    values = parse_yaml(_read("data.events.split", name, "protocols", ".yaml"), subject)
    try:
        return Protocol.of(values)
    except UserError as error:
        raise UserError(f"{subject}: {error}") from None


def _read(key: str, name: str, folder: str, suffix: str) -> str:
    bundled = files(__package__) / folder / f"{name}{suffix}"
    if bundled.is_file():
        return bundled.read_text(encoding="utf-8")
    if name.endswith(suffix):
        try:
            return Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{key}: {name}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{key}: {name}: is no text ({error})") from error
    known = sorted(entry.name.removesuffix(suffix) for entry in (files(__package__) / folder).iterdir())
    raise UserError(f"{key}: expected one of {', '.join(known)} or the path of a {suffix} file, got {name!r}")
