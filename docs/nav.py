"""Hook of mkdocs: what the navigation names is shown once it is there, and no page is left out of it."""

import logging
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.nav")


def on_config(config: Any) -> Any:
    """Drop entries without a file, saying so, and gather pages without an entry under "More"."""
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
