"""Hooks of mkdocs: the navigation, and links to files of the repository that are not pages."""

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOG = logging.getLogger("mkdocs.hooks")


def on_config(config: Any) -> Any:
    """Drop entries without a file, with a warning, and gather pages without an entry under "More"."""
    docs = Path(config.docs_dir)
    named: set[str] = set()

    def present(entries: list[Any]) -> list[Any]:
        kept = []
        for entry in entries:
            ((title, target),) = entry.items()
            if isinstance(target, list):
                if section := present(target):
                    kept.append({title: section})
            elif (docs / target).exists():
                named.add(target)
                kept.append(entry)
            else:
                LOG.info("no page %s yet: left out", target)
        return kept

    config.nav = present(config.nav)
    others = sorted({str(page.relative_to(docs)) for page in docs.rglob("*.md")} - named)
    if others:
        config.nav.append({"More": others})
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace a link to a file outside docs/, which serves readers of the repository, by its text."""

    def text(match: re.Match[str]) -> str:
        target = (Path(page.file.abs_src_path).parent / match["target"].partition("#")[0]).resolve()
        outside = target.is_relative_to(ROOT) and not target.is_relative_to(ROOT / "docs")
        return match["text"] if outside and target.exists() else match[0]

    return re.sub(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\.[^)]*)\)", text, markdown)
