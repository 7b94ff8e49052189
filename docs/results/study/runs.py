"""One run of the study, and the records of the finished ones."""

import json
import shutil
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from targets import TEMPORARY, TUNING_STEPS, Target, drawn, everything

from tmkt.tensor_files import read_tensors, write_tensors
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import Trainer

METHODS = ("events_only", "finetune", "joint", "sliding", "ckd", "tmkt", "bridge")


class Cell(NamedTuple):
    """One run; `name` is its row in the report."""

    name: str
    method: str
    count: int | None
    seed: int
    changes: dict[str, Any]

    @property
    def key(self) -> str:
        return json.dumps([self.name, self.method, self.count, self.seed, self.changes])


def run(target: Target, cell: Cell, stage: str) -> dict[str, Any]:
    """Train one cell in a temporary folder; the seed also draws its training recordings and images."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        changes = {key.replace(".", "__"): value for key, value in cell.changes.items()}
        base = everything(target).base.replace(seed=cell.seed, out=folder, transfer__method=cell.method)
        config = base.replace(**changes)
        tuning, twins = stage in ("tune", "confirm"), stage == "twins"
        if tuning:
            steps = TUNING_STEPS if stage == "tune" else config.train.steps
            config = config.replace(train__steps=steps, train__eval_every=steps)
        data = drawn(target, cell.count, config, tuning=tuning, twins=twins)
        trainer = Trainer(config, data)
        # A teacher depends on the images, the seed and the weight decay alone.
        of_teacher = (target.name, target.images, twins, cell.seed, config.train.weight_decay)
        teacher = TEMPORARY / f"teacher-{'-'.join(map(str, of_teacher))}.safetensors"
        if config.transfer.distils and teacher.exists():
            write_tensors(trainer.folder.teacher, read_tensors(teacher)[0], trainer.identity)
        score = trainer.run(introduce=False)
        if config.transfer.distils:
            shutil.copy(trainer.folder.teacher, teacher)
        curve = [m["accuracy"] for m in RunFolder(folder).metrics() if m["kind"] == "validation"]
    record = {"key": cell.key, **cell._asdict(), "accuracy": score.accuracy}
    if not tuning:
        right = np.array(score.predicted) == data.test.labels.numpy()
        record |= {"test_right": "".join(str(int(r)) for r in right), "curve": curve}
    return {**record, "cpu_seconds": round(time.process_time() - began, 1)}


def read(target: Target, stage: str) -> list[dict[str, Any]]:
    path = target.folder / f"{stage}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
