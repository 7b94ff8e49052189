"""Reading the files of a run's folder."""

import json
from pathlib import Path
from typing import Any


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl; a last line that is being written is left out."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """name, label and predicted class of each test recording of a finished run."""
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def is_finished(folder: Path) -> bool:
    """Whether a run has its test score, the predictions behind it, and its weights."""
    files = [folder / name for name in ("metrics.jsonl", "predictions.jsonl", "model.safetensors")]
    return all(file.is_file() for file in files) and any(r["kind"] == "test" for r in read_metrics(folder))


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of a run's classes, by label."""
    return tuple(json.loads((folder / "split.json").read_text(encoding="utf-8"))["classes"])
