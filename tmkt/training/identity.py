"""Identity of a run: its settings and its data, with their content."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from ..config import Config
from ..data import PARTS


def run_identity(config: Config, record: dict[str, Any]) -> str:
    """Return a digest of a run's settings except `out` and `resume`, and of its data (`RunData.record`) and content.

    Runs with the same identity have equal checkpoints; those of another run are never taken for its own.
    """
    text = json.dumps([_settings(config.dump()), record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def changed_setting(text: str, config: Config) -> str | None:
    """Return the first line in which a config.yaml differs from `config`, without `out` and `resume`."""
    for before, after in itertools.zip_longest(_settings(text), _settings(config.dump()), fillvalue="nothing"):
        if before != after:
            return f"{before.strip()!r}, now {after.strip()!r}"
    return None


def _settings(text: str) -> list[str]:
    """Return the lines of a config.yaml except those of `out` and `resume`."""
    keys = re.split(r"(?m)^(?=\w)", text)
    return "".join(key for key in keys if not key.startswith(("out:", "resume:"))).splitlines()


def changed_data(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Name the recordings or images that are gone, new or changed, from two values of `RunData.record`."""
    before, after = (dict(_contents(record)) for record in (old, new))
    found = {
        "gone": sorted(before.keys() - after.keys()),
        "new": sorted(after.keys() - before.keys()),
        "of another content": sorted(key for key in before.keys() & after.keys() if before[key] != after[key]),
    }
    parts = [f"{len(k)} {what} ({', '.join(k[:3])}{', ...' if len(k) > 3 else ''})" for what, k in found.items() if k]
    return ", ".join(parts) or "their order, classes, seed or simulator"


def _contents(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    digests = record.get("digests")
    for part in PARTS:
        names = record.get(part)
        of_part = digests.get(part) if isinstance(digests, dict) else None
        for name, digest in itertools.zip_longest(*(x if isinstance(x, list) else [] for x in (names, of_part))):
            yield f"{part} {name}", digest
