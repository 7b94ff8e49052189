"""Hook of mkdocs: puts the tables of all settings into settings.md, from the fields of tmkt/config."""

import html
import inspect
from typing import Any

import yaml

from tmkt.config import Config
from tmkt.settings import Section, describe

MARK = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(MARK, "\n".join(tables(Config)))


def tables(section: type[Section]) -> list[str]:
    """Return a heading and a table for each section of the configuration, the outermost first."""
    inner = section.inner()
    keys = [name for name in section.model_fields if name not in inner]
    head = ["| key | value | unit | default | meaning |", "| --- | --- | --- | --- | --- |"]
    rows = [row(name, section.schema_of(name)) for name in keys]
    lines = [f"## {section.section or 'The run'}", "", inspect.getdoc(section) or "", "", *head, *rows, ""]
    return lines + [line for kind in inner.values() for line in tables(kind)]


def row(name: str, schema: dict[str, Any]) -> str:
    default = yaml.safe_dump(schema["default"], default_flow_style=True).partition("\n")[0]
    texts = [
        html.escape(text, quote=False).replace("{", "&#123;") for text in (describe(schema), schema["description"])
    ]
    cells = (f"`{name}`", texts[0], schema.get("unit", ""), f"`{default}`", texts[1])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
