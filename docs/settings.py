"""Hook of mkdocs: puts the tables of all settings, with the comments of tmkt/config.py, into settings.md."""

import html
import inspect
import re
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import yaml

from tmkt.config import Config

MARK = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(MARK, "\n".join(tables(Config)))


def tables(section: type) -> list[str]:
    """A heading and a table for each section of the configuration, the outermost first."""
    comments, hints = comments_of(section), typing.get_type_hints(section)
    rows, inner = [], []
    for entry in fields(section):
        kind = hints[entry.name]
        if is_dataclass(kind):
            inner += tables(typing.cast(type, kind))
            continue
        comment = html.escape(comments.get(entry.name, "")).replace("{", "&#123;")
        cells = (f"`{entry.name}`", describe(kind), f"`{default(entry)}`", bounds(entry), comment)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    name = vars(section).get("section") or "The run"
    text = (section.__doc__ or "").strip()
    about = (
        [] if text.startswith(section.__name__) else [text, ""]
    )  # a dataclass without a docstring gets its signature
    head = ["| key | type | default | range | |", "| --- | --- | --- | --- | --- |"]
    return [f"## {name}", "", *about, *head, *rows, "", *inner]


def comments_of(section: type) -> dict[str, str]:
    """Field -> the comment on its line and on the lines above."""
    found, above = {}, ""
    for line in inspect.getsource(section).splitlines():
        code, _, comment = line.partition("#")
        if name := re.match(r"    (\w+): ", code):
            found[name[1]] = f"{above} {comment.strip()}".strip()
        above = f"{above} {comment.strip()}" if comment and not code.strip() else ""
    return found


def describe(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("None", "null")


def default(entry: Field) -> str:
    """As it is written in YAML."""
    value = entry.default if entry.default_factory is MISSING else entry.default_factory()
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).partition("\n")[0]


def bounds(entry: Field) -> str:
    low, high = entry.metadata.get("low"), entry.metadata.get("high")
    if low is None and high is None:
        return ""
    return f"at least {low}" if high is None else f"{low} to {high}"
