"""What makes a run this run and no other: its settings and its data, with their content."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import atomic_files
from ..config import Config
from ..data import PARTS
from ..errors import DamagedError, UserError


def check_same_run(config: Config, out: Path) -> None:
    """A run goes on under the settings that it began with; `resume`, and how its folder is called, may differ.

    Raises:
        UserError: `out` holds a run with other settings, or its config.yaml is damaged.
    """
    try:
        old = _settings(atomic_files.read_text(out / "config.yaml"))
    except DamagedError as error:
        raise UserError(f"out: {out}: {error}; put it back, or choose another out=") from error
    for before, after in itertools.zip_longest(old, _settings(config.dump()), fillvalue="nothing"):
        if before != after:
            found = f"{before.strip()!r}, now {after.strip()!r}"
            raise UserError(f"out: {out} holds a run with other settings ({found}); choose another out=")


def check_same_data(split_file: Path, record: dict[str, Any]) -> None:
    """A run goes on with the recordings and images that it began with, and with their content.

    Raises:
        UserError: what split.json says of them differs from `record`, with the first that differ.
    """
    try:
        old = atomic_files.read_object(split_file)
    except DamagedError as error:
        raise UserError(f"out: {split_file.parent}: {error}; delete it, and the same command writes it anew") from error
    if old != record:
        what = _changes(old, record)
        raise UserError(f"out: the data has changed since {split_file} was written: {what}; choose another out=")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Which recordings or images are gone, new or of another content, by two records of split.json."""
    before, after = (dict(_contents(record)) for record in (old, new))
    found = {
        "gone": sorted(before.keys() - after.keys()),
        "new": sorted(after.keys() - before.keys()),
        "of another content": sorted(key for key in before.keys() & after.keys() if before[key] != after[key]),
    }
    parts = [f"{len(k)} {what} ({', '.join(k[:3])}{', ...' if len(k) > 3 else ''})" for what, k in found.items() if k]
    return ", ".join(parts) or "their order, classes or seed"


def _contents(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    digests = record.get("digests")
    for part in PARTS:
        names = record.get(part)
        of_part = digests.get(part) if isinstance(digests, dict) else None
        for name, digest in itertools.zip_longest(*(x if isinstance(x, list) else [] for x in (names, of_part))):
            yield f"{part} {name}", digest


def run_identity(config: Config, record: dict[str, Any]) -> str:
    """What a run is made of, in one word: its settings but `out` and `resume`, and its data with their content.

    Two runs of one identity have equal checkpoints; those of another are never taken for its own.
    """
    text = json.dumps([_settings(config.dump()), record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _settings(text: str) -> list[str]:
    """The lines of a config.yaml but those of `out` and `resume`."""
    keys = re.split(r"(?m)^(?=\w)", text)
    return "".join(key for key in keys if not key.startswith(("out:", "resume:"))).splitlines()
