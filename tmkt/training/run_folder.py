"""A run's folder: the only module that knows its files."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import atomic_files, tensor_files
from ..config import Config, load_config
from ..data import PARTS
from ..errors import DamagedError, UserError
from ..models import SpikingClassifier
from ..models.finite import check_finite
from ..progress import say
from .checkpoint import Checkpoint, Checkpoints, check_tensors
from .identity import changed_data, changed_setting, run_identity
from .lock import FolderLock
from .network import build_model

CONFIG = "config.yaml"
SPLIT = "split.json"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
WEIGHTS = "model.safetensors"
CLASSES = "classes.csv"  # only in an export: the user's own class map


class RunFolder:
    """The files of one run. Any process may read them; a writer calls `begin` first, which takes the lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lock = FolderLock(self.path)
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self.teacher = self.path / "teacher.safetensors"  # of `ckd`, see method/teacher.py
        self.log = self.path / "train.log"  # output of a run of `tmkt compare`

    def __str__(self) -> str:
        return str(self.path)

    def subfolder(self, name: str) -> Path:
        """Return a subfolder of the run's folder, made if missing. Raises UserError if it is a link."""
        return atomic_files.make_folder(self.path, name)

    def tensorboard(self) -> Path:
        """Return the folder of TensorBoard's files, as `subfolder`."""
        return self.subfolder("tensorboard")

    # Writing

    def begin(self, config: Config, record: dict[str, Any]) -> None:
        """Take the lock, and write the run's settings and data, `RunData.record`.

        Raises:
            UserError: another process is training here, or the folder holds a run with other settings or other data.
        """
        atomic_files.make_folder(self.path)
        if not self.lock.acquire():
            raise UserError(f"out: another process is training in {self}; choose another out=, or wait")
        if config.resume == "never" and (self.path / CONFIG).exists():
            raise UserError(f"out: {self} holds a run already; choose another out=, or resume=auto to go on")
        self.check_same_run(config)
        self._check_same_data(record)
        atomic_files.write_text(self.path / SPLIT, json.dumps(record) + "\n")
        atomic_files.write_text(self.path / CONFIG, config.dump())
        self.subfolder(self.checkpoints.path.name)

    def check_same_run(self, config: Config) -> None:
        """Check that a resumed run has its original settings; `resume`, and the folder's name, may differ.

        Raises:
            UserError: the folder holds a run with other settings, or its config.yaml is damaged.
        """
        if not (self.path / CONFIG).exists():
            return
        try:
            changed = changed_setting(atomic_files.read_text(self.path / CONFIG), config)
        except DamagedError as error:
            raise UserError(f"out: {self}: {error}; put it back, or choose another out=") from error
        if changed:
            raise UserError(f"out: {self} holds a run with other settings ({changed}); choose another out=")

    def _check_same_data(self, record: dict[str, Any]) -> None:
        """Check that a resumed run has its original recordings and images, with unchanged content."""
        path = self.path / SPLIT
        if not path.exists():
            return
        try:
            old = atomic_files.read_object(path)
        except DamagedError as error:
            raise UserError(f"out: {self}: {error}; delete it, and the same command writes it anew") from error
        if old != record:
            changed = changed_data(old, record)
            raise UserError(f"out: the data has changed since {path} was written: {changed}; choose another out=")

    def rewind(self, step: int) -> None:
        """Drop the metrics that a run resumed at `step` writes again: those beyond it, and the test score.

        A line that is not a record is dropped too. It was being written when the run was killed, or was edited.
        """
        path = self.path / METRICS
        if not path.exists() and not path.is_symlink():
            return
        try:
            records = [r for r in self.metrics() if r["step"] <= step and r["kind"] != "test"]
        except DamagedError as error:
            raise UserError(f"out: {self}: {error}; remove it, then run the same command again to resume") from error
        atomic_files.write_text(path, "".join(json.dumps(record) + "\n" for record in records))

    def append(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Add a record to the metrics. Raises UserError if another process has since begun in the folder."""
        self.lock.check()
        record = {"kind": kind, "step": step, **values}
        atomic_files.append(self.path / METRICS, json.dumps(record) + "\n")

    def save_checkpoint(self, step: int, checkpoint: Checkpoint, keep: int, best: int | None) -> None:
        """Write a checkpoint, then delete all but the `keep` newest and that of step `best`."""
        self.lock.check()
        self.checkpoints.save(step, checkpoint)
        self.checkpoints.prune(keep, best)

    def finish(self, predictions: Iterable[tuple[str, int, int]], weights: dict[str, Tensor], run: str) -> None:
        """Write (name, label, predicted class) of each test recording, and the weights of the run of identity `run`."""
        rows = (dict(zip(("name", "label", "predicted"), row, strict=True)) for row in predictions)
        atomic_files.write_text(self.path / PREDICTIONS, "".join(json.dumps(row) + "\n" for row in rows))
        tensor_files.write_tensors(self.path / WEIGHTS, weights, run)

    def copy_to(self, target: "RunFolder", config: Config, more: Mapping[str, bytes], allowed: Collection[str]) -> None:
        """Write this finished run into another folder, as a run of the settings `config`.

        The copy has what `load_model` and an evaluation read. Of the metrics it has the environment and the test score.

        Args:
            more: further files, by name.
            allowed: names of further files that an earlier copy may have.

        Raises:
            UserError: the target holds anything but an earlier copy of this run, or a file cannot be written.
            DamagedError: a file of this run is.
        """
        split = self.split()
        weights, _ = tensor_files.read_tensors(self.path / WEIGHTS)
        files = {
            CONFIG: config.dump().encode(),
            SPLIT: (json.dumps(split) + "\n").encode(),
            METRICS: "".join(json.dumps(r) + "\n" for r in (self.environment(), self.test_score()) if r).encode(),
            PREDICTIONS: atomic_files.read(self.path / PREDICTIONS),
            **more,
        }
        original = self.config()
        if has_own_class_map(original):
            own = self.path / CLASSES
            files[CLASSES] = atomic_files.read(own if own.is_file() else Path(original.data.classes))
        target.check_is_copy({CONFIG: files[CONFIG], SPLIT: files[SPLIT]}, {*files, WEIGHTS, CLASSES, *allowed})
        atomic_files.make_folder(target.path)
        for name in {CLASSES, *allowed} - files.keys():
            atomic_files.remove(target.path / name)  # of an earlier copy
        for name, content in files.items():
            atomic_files.write(target.path / name, content)
        tensor_files.write_tensors(target.path / WEIGHTS, weights, run_identity(config, split))

    def check_is_copy(self, same: Mapping[str, bytes], allowed: Collection[str]) -> None:
        """Check that this folder is missing or empty, or has only files of `allowed` and the given content of `same`.

        Raises:
            UserError: it holds something else.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self}: is no folder; choose another one to export to")
        found = {path.name for path in self.path.iterdir()}
        other = found - set(allowed) if CONFIG in found else found
        other |= {name for name in found & same.keys() if (self.path / name).read_bytes() != same[name]}
        if other:
            raise UserError(f"{self}: holds {min(other)}, not an earlier export of this run; choose another folder")

    # Reading

    def config(self, overrides: Sequence[str] = ()) -> Config:
        """Return the settings of the run, with overrides. Raises UserError if config.yaml is missing or wrong."""
        return load_config(self.path / CONFIG, overrides)

    def guest_config(self, overrides: Sequence[str] = ()) -> Config:
        """Return the settings for work on a finished run, with overrides. Raises UserError as `config`.

        The run may be a stranger's: no cache is written and nothing is downloaded. A class map in the folder is used.
        """
        own_map = {"data__classes": str(self.path / CLASSES)} if (self.path / CLASSES).is_file() else {}
        return self.config(overrides).replace(data__cache=None, data__events__download=False, **own_map)

    def environment(self) -> dict[str, Any]:
        """Return the last record of the environment: versions, device and processes."""
        records = [record for record in self.metrics() if record["kind"] == "environment"]
        return records[-1] if records else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl; lines without one, such as a line being written, are skipped."""
        return [record for record in atomic_files.read_records(self.path / METRICS) if _is_record(record)]

    def steps_done(self) -> int:
        """Return the last step in the metrics; 0 before there is any."""
        records = self.metrics() if (self.path / METRICS).is_file() else []
        return records[-1]["step"] if records else 0

    def split(self) -> dict[str, Any]:
        """Return the `RunData.record` of the run: the recordings and images of each part."""
        return atomic_files.read_object(self.path / SPLIT)

    def classes(self) -> tuple[str, ...]:
        """Return the names of the run's classes, by label."""
        classes = self.split().get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise DamagedError(f"{SPLIT} holds no names of classes")
        return tuple(classes)

    def recordings(self) -> list[str]:
        """Return the names of all recordings of the run. Raises UserError if split.json is damaged."""
        try:
            split = self.split()
            return [name for part in PARTS if part != "static_images" for name in split[part]]
        except (UserError, LookupError, TypeError) as error:
            raise UserError(f"run {self}: {SPLIT} cannot be read ({error}); expected the folder of a run") from error

    def predictions(self) -> list[dict[str, Any]]:
        """Return name, label and predicted class of each test recording of a finished run."""
        path, classes = self.path / PREDICTIONS, self.classes()
        records = [atomic_files.parse_object(line, path.name) for line in atomic_files.read(path).splitlines()]
        for record in records:
            labels = [record.get(key) for key in ("label", "predicted")]
            if not isinstance(record.get("name"), str) or not all(
                type(label) is int and 0 <= label < len(classes) for label in labels
            ):
                raise DamagedError(f"{path}: is damaged, a record lacks name, label or predicted; delete it")
        return records

    def test_score(self) -> dict[str, Any] | None:
        """Return the record of a finished run's test score; None until it has score, predictions and weights."""
        if not all((self.path / name).is_file() for name in (METRICS, PREDICTIONS, WEIGHTS)):
            return None
        scores = [record for record in self.metrics() if record["kind"] == "test" and _is_score(record)]
        return scores[-1] if scores else None

    def is_finished(self) -> bool:
        """Return whether the run has its test score, the predictions behind it, and its weights."""
        return self.test_score() is not None

    def load_model(self) -> tuple[Config, SpikingClassifier, tuple[str, ...]]:
        """Return a finished run's configuration, its network with the trained weights, and its classes.

        The configuration is `guest_config`.

        Raises:
            UserError: a file is missing or damaged, does not fit the others, or the weights hold NaN or infinity.
        """
        for name in (CONFIG, SPLIT, WEIGHTS):
            if not (self.path / name).exists():
                raise UserError(f"run {self}: {name} is missing; expected the folder of a finished `tmkt train`")
        config = self.config()
        try:
            split, classes = self.split(), self.classes()
        except DamagedError as error:
            raise UserError(f"run {self}: {error}; delete it, and the same `tmkt train` writes it anew") from error
        model = build_model(config, len(classes))
        try:
            weights, writer = tensor_files.read_tensors(self.path / WEIGHTS)
            if writer not in (None, run_identity(config, split)):
                say(f"run {self}: {CONFIG} or {SPLIT} is not the one that these weights were trained with")
            check_tensors(weights, model.state_dict(), WEIGHTS)
            check_finite(weights, WEIGHTS, "no accuracy of such a network means anything")
        except UserError as error:
            raise UserError(f"run {self}: {error}; `tmkt train` makes it again") from error
        model.load_state_dict(weights)
        return self.guest_config(), model, classes


def has_own_class_map(config: Config) -> bool:
    """Return whether `data.classes` is the path of a file, not a name of this package."""
    return config.data.classes.endswith(".csv")


def _is_record(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("kind"), str) and type(record.get("step")) is int


def _is_score(record: Mapping[str, Any]) -> bool:
    numbers = [record.get(key) for key in ("accuracy", "correct", "total", "seconds")]
    return all(isinstance(number, (int, float)) for number in numbers)
