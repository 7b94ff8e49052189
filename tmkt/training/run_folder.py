"""Reading the files of a run's folder."""

from pathlib import Path
from typing import Any

from .. import atomic_files
from ..errors import DamagedError


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl; a line that is no record, as one that is being written, is left out."""
    return [record for record in atomic_files.read_records(folder / "metrics.jsonl") if is_record(record)]


def is_record(record: dict[str, Any]) -> bool:
    """Whether a JSON object is a record of metrics.jsonl."""
    return isinstance(record.get("kind"), str) and type(record.get("step")) is int


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """name, label and predicted class of each test recording of a finished run."""
    path, (_, classes) = folder / "predictions.jsonl", read_split(folder)
    records = [atomic_files.parse_object(line, path.name) for line in atomic_files.read(path).splitlines()]
    for record in records:
        labels = [record.get(key) for key in ("label", "predicted")]
        if not isinstance(record.get("name"), str) or not all(
            type(label) is int and 0 <= label < len(classes) for label in labels
        ):
            raise DamagedError(f"{path}: is damaged, a record lacks name, label or predicted; delete it")
    return records


def test_score(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run's test score; None while the run has not its score, predictions and weights."""
    names = ("metrics.jsonl", "predictions.jsonl", "model.safetensors")
    if not all((folder / name).is_file() for name in names):
        return None
    scores = [r for r in read_metrics(folder) if r["kind"] == "test" and _is_score(r)]
    return scores[-1] if scores else None


def is_finished(folder: Path) -> bool:
    """Whether a run has its test score, the predictions behind it, and its weights."""
    return test_score(folder) is not None


def read_split(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What split.json holds, and the names of the run's classes, by label."""
    record = atomic_files.read_object(folder / "split.json")
    classes = record.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise DamagedError("split.json holds no names of classes")
    return record, tuple(classes)


def _is_score(record: dict[str, Any]) -> bool:
    numbers = [record.get(key) for key in ("accuracy", "correct", "total", "seconds")]
    return all(isinstance(number, (int, float)) for number in numbers)
