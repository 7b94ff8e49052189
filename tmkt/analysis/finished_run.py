"""A finished run, opened for analysis: its network on the device, its data, and samples of both domains."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tmkt_kernels import time_step_mixup

from ..config import Config
from ..data import RunData, prepare
from ..models import SpikingClassifier
from ..seeding import step_generator
from ..training.network import device_for
from ..training.run_folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """Contents of a run for `tmkt diagnose` and `tmkt profile`."""

    folder: RunFolder
    config: Config
    model: SpikingClassifier
    data: RunData
    device: torch.device

    def generator(self, number: int) -> torch.Generator:
        """Return a generator for the run's seed and a number of the caller's, so that a diagnosis is reproducible."""
        return step_generator(self.config.seed, number)


def open_run(run_dir: str | Path) -> FinishedRun:
    """Load the network and the data of a finished run. Raises UserError, naming what is missing."""
    folder = RunFolder(run_dir)
    config, model, _ = folder.load_model()
    device = device_for(config)
    data = prepare(config)
    data = replace(data, train=data.train.to(device))
    return FinishedRun(folder, config, model.to(device), data, device)


class TestSamples:
    """Test recordings, a random `limit` of them at most, each with a static image of its class."""

    def __init__(self, run: FinishedRun, limit: int) -> None:
        generator = run.generator(0)
        chosen = torch.randperm(len(run.data.test), generator=generator)[:limit].sort().values
        self.run, self.label = run, run.data.test.labels[chosen]
        self.frames = run.data.test.frames[:, chosen].to(run.device)
        self.static_index = run.data.train.static_by_class.draw(self.label, generator).to(run.device)

    def __len__(self) -> int:
        return len(self.label)

    def sequence(self, switch_step: Tensor) -> Tensor:
        """Return float32 [T, B, 2, H, W]: images until switch_step [B], then recordings. 0: events; T: static."""
        return time_step_mixup(
            self.run.data.train.images,
            self.frames,
            switch_step.to(self.run.device),
            static_index=self.static_index,
            scale=(1 / 255, self.run.config.data.events.scale),
            dtype=torch.float32,
        )

    def domains(self) -> dict[str, Tensor]:
        """Return the same samples as static sequences and as event sequences."""
        T, batch = self.frames.shape[0], len(self)
        return {"static": self.sequence(torch.full((batch,), T)), "event": self.sequence(torch.zeros(batch).long())}
