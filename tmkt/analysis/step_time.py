"""Time of a training step, and of its stages: draw of pairs, simulation, mixing, forward, backward, optimiser."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from matplotlib.figure import Figure
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..atomic_files import make_folder, write_text
from ..config import Config, DataConfig, load_config
from ..data import RunData, prepare
from ..errors import UserError
from ..method.teacher import Targets
from ..progress import count, say, track
from ..stages import REST, timed
from ..training.memory import enough_memory
from ..training.trainer import Trainer
from .figures import save
from .grid import parse_method

STAGES = {
    "data": "draw of pairs",
    "simulation": "simulation",
    "mixing": "mixing",
    "forward": "forward",
    "backward": "backward",
    "optimiser": "optimiser",
    REST: "other",
}
"""Stages of a step in their order, each with its title."""

_COLOURS = ("#8c6d31", "#d95f02", "#e7ba52", "#1b6ca8", "#7aa6c2", "#555555", "#c7c7c7")
_WARM_UP = 3  # steps before the measured ones: memory, threads and caches are then as in a long training


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimiser step of `samples` pairs, medians over `steps` steps: of the whole and of each stage.

    The medians of the stages need not add up to that of the whole.
    """

    method: str
    device: str
    samples: int
    steps: int
    seconds: float
    stages: dict[str, float]


def step_time(name: str, config: Config, data: RunData, steps: int) -> StepTime:
    """Time `steps` steps of `Trainer`, spread evenly over the training that `config` describes, from initial weights.

    The trainer's own step runs, and writes nothing. A teacher's targets are zeros, because no teacher is trained in a
    step.
    """
    trainer = Trainer(config, data)
    trainer.task.train()
    if config.transfer.distils:
        images, width = (
            len(data.train.images),
            torchvision.models.get_model(config.transfer.teacher.name).fc.in_features,
        )
        targets = Targets(torch.zeros(images, len(data.classes)), torch.zeros(images, width))
        trainer.targets = targets.to(trainer.device)
    measured = []
    for number in track(range(-_WARM_UP, steps), f"timing {name}"):
        trainer.state.step = config.train.steps * max(0, number) // steps
        with timed(trainer.device) as seconds:
            trainer.train_step()
        if number >= 0:
            measured.append(seconds)
    return StepTime(
        method=name,
        device=trainer.device.type,
        samples=trainer.batch,
        steps=steps,
        seconds=statistics.median(sum(each.values()) for each in measured),
        stages={stage: statistics.median(each.get(stage, 0.0) for each in measured) for stage in STAGES},
    )


def step_times(
    configs: Mapping[str, Config], steps: int, known: tuple[DataConfig, RunData] | None = None
) -> list[StepTime]:
    """Time each of `configs`, which have names; `known`: data that is loaded already, with its settings.

    Raises:
        UserError: steps below 1, or a configuration that cannot be trained.
    """
    if steps < 1:
        raise UserError(f"--steps: expected at least 1, got {steps}")
    results = []
    for number, (name, config) in enumerate(configs.items(), 1):
        if known is None or known[0] != config.data:
            known = config.data, prepare(config)
        say(
            f"{number} of {len(configs)}: timing {count(steps, 'training step')} of {name}, after {_WARM_UP} to warm up"
        )
        with enough_memory(config):
            results.append(step_time(name, config, known[1], steps))
    return results


def variants(load: Callable[[Sequence[str]], Config], methods: Sequence[str]) -> dict[str, Config]:
    """Return a configuration for each of `methods`, written as for `tmkt compare`; none: the configuration's own.

    load: from overrides to a configuration.

    Raises:
        UserError: a wrong method or setting.
    """
    if not methods:
        config = load([])
        return {config.transfer.method: config}
    return {name: load(settings) for name, settings in map(parse_method, methods)}


def profile_config(
    path: str | Path, overrides: Sequence[str], methods: Sequence[str], steps: int, out: str | Path | None = None
) -> list[StepTime]:
    """Time the training steps of a configuration; with `out`, write profile.json and step_time.png there."""
    times = step_times(variants(lambda own: load_config(path, [*overrides, *own]), methods), steps)
    if out is not None:
        folder = make_folder(Path(out))
        write_text(
            folder / "profile.json", json.dumps({"step_times": [asdict(each) for each in times]}, indent=1) + "\n"
        )
        save(draw_step_times(times), folder / "step_time.png")
    return times


def step_time_table(times: Sequence[StepTime]) -> Group:
    """Return one row per stage and one column per method, for the terminal."""
    first = times[0]
    title = f"training step of {count(first.samples, 'pair')} on {first.device}: ms, median of {first.steps} steps"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for each in times:
        table.add_column(each.method, justify="right")
    for stage, name in STAGES.items():
        table.add_row(name, *(_cell(each.stages[stage], each.seconds) for each in times))
    table.add_row("step", *(f"{each.seconds * 1e3:.2f}" for each in times))
    return Group(Text(title), table)


def _cell(seconds: float, whole: float) -> str:
    return f"{seconds * 1e3:.2f} ({seconds / whole:.0%})"


def draw_step_times(times: Sequence[StepTime]) -> Figure:
    """Draw a stacked bar for each method."""
    figure = Figure(figsize=(8, 1.7 + 0.45 * len(times)))
    axis = figure.subplots()
    left = [0.0] * len(times)
    for (stage, name), colour in zip(STAGES.items(), _COLOURS, strict=True):
        widths = [each.stages[stage] * 1e3 for each in times]
        if any(widths):
            axis.barh(range(len(times)), widths, left=left, height=0.6, color=colour, label=name)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(times)), [each.method for each in times])
    axis.invert_yaxis()
    axis.set_xlabel("ms per training step, median of each stage")
    axis.set_title(f"{times[0].samples} pairs per step, on {times[0].device}", fontsize=10)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure
