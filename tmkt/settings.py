"""Settings that check themselves: pydantic models whose errors name the key, the value and what was expected.

Nothing is ignored or cast: an unknown key, a wrong type or a value out of range is a UserError. A list may replace a
tuple, an integer a float, and so may a text such as 1e-3, which YAML 1.1 does not read as a number.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError

_NAMES = {
    "integer": ("an integer", "integers"),
    "number": ("a number", "numbers"),
    "finite": ("a finite number", "finite numbers"),
    "string": ("a text", "texts"),
    "boolean": ("true or false", "values true or false"),
    "object": ("a mapping `{text: value}`", "mappings"),
    "null": ("null", "nulls"),
}
_LONGEST = 80  # characters of a wrong value in an error message
_ABSENT = object()


def setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """Define a key of a Section: its default, its meaning, the unit of its numbers, and limits (ge, gt, le, lt)."""
    extra: Any = {"unit": unit} if unit else None
    return Field(default, description=description, json_schema_extra=extra, **limits)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


AsNumber = BeforeValidator(_number)  # after a type's own limits, so that these are in the schema
Number = Annotated[float, AsNumber]
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


class Section(BaseModel):
    """Checks types, ranges and keys at construction, so that every existing settings object is valid.

    Raises:
        UserError: the first mistake, with its dotted key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str] = ""
    """The dotted key of the section; "" for the outermost."""

    def __init__(self, **values: Any) -> None:
        with _own_errors(type(self), values):
            super().__init__(**values)

    # Inner sections are not built by this __init__, so that the outermost one gets an error with its whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield (key, problem and remedy) for settings that exclude each other; the key is relative to the section."""
        yield from ()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for key, problem in self.contradictions():
            raise ValueError(f"{key}: {problem}")
        return self

    @classmethod
    def of(cls, values: Any) -> Self:
        """Build the section from plain values of any kind."""
        with _own_errors(cls, values):
            return cls.model_validate(values)

    @classmethod
    def schema_of(cls, name: str) -> dict[str, Any]:
        """Return the JSON schema of one key, with its description, unit and default."""
        schema: dict[str, Any] = cls.model_json_schema()["properties"][name]
        return schema

    @classmethod
    def inner(cls) -> dict[str, "type[Section]"]:
        """Return the sections in this section, by key."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)}


def describe(schema: dict[str, Any]) -> str:
    """Return a value's type and range in words, from its JSON schema: "an integer of at least 1 or null"."""
    if "anyOf" in schema:
        return " or ".join(describe(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] != "array":
        one, _ = _names(schema)
        return one + _range(schema)
    items = schema.get("prefixItems")
    item = items[0] if items else schema["items"]
    _, many = _names(item)
    return f"{len(items) if items else 'a list of'} {many}{_range(item)}"


def _names(schema: dict[str, Any]) -> tuple[str, str]:
    unlimited = schema["type"] == "number" and not _range(schema)
    return _NAMES["finite" if unlimited else schema["type"]]


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None:
        return f" of at least {low}" if high is None else f" in [{low}, {high}]"
    if above is not None:
        return f" above {above}" if below is None else f" in ({above}, {below})"
    return ""


@contextmanager
def _own_errors(kind: type[Section], values: Any) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problems = error.errors(include_url=False)
        unknown = [problem for problem in problems if problem["type"] in ("extra_forbidden", "invalid_key")]
        raise UserError(_explain(kind, values, (unknown or problems)[0])) from None


def _explain(kind: type[Section], values: Any, problem: Any) -> str:
    """Describe the fault in `values` of `kind`, from one pydantic error."""
    key, got, schema = kind.section, values, None
    for step in problem["loc"]:
        if step not in kind.model_fields:
            return _unknown(kind, key, step)
        key = f"{key}.{step}".lstrip(".")
        got = got.get(step, _ABSENT)
        if step not in kind.inner():
            schema = kind.schema_of(step)
            break  # the rest is an item of a list or a choice of types
        kind = kind.inner()[step]
    if problem["type"] == "value_error":
        return f"{key}.{problem['ctx']['error']}".lstrip(".")
    if schema is None:
        where = f"{key}: " if key else ""
        return f"{where}expected a section of `key: value`, got {_short(got)}"
    if got is _ABSENT:
        return f"{key}: is missing; expected {describe(schema)}"
    return f"{key}: expected {describe(schema)}{_hint(schema, got)}"


def _unknown(kind: type[Section], section: str, name: Any) -> str:
    prefix = f"{section}." if section else ""
    known = list(kind.model_fields)
    if not known:
        return f"unknown key {prefix}{name}; {kind.__name__} takes none"
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
    return f"unknown key {prefix}{name}; the nearest known one is {prefix}{nearest}"


def _hint(schema: dict[str, Any], got: Any) -> str:
    if "enum" in schema:
        nearest = difflib.get_close_matches(str(got), schema["enum"], n=1, cutoff=0.0)[0]
        return f"; got {_short(got)} (nearest: {nearest})"
    example = schema.get("default")
    shown = f" such as {example}" if example and example is not True else ""
    return f"{shown}, got {_short(got)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
