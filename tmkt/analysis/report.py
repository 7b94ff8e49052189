"""The page of a comparison: report.md, report.html, and the figures of both."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.figure import Figure

from ..atomic_files import make_folder, write_text
from ..data import prepare
from ..models.activity import firing_rates, layer_titles
from ..progress import count as counted
from ..progress import say, visible
from ..training.network import device_for
from . import figures
from .example_batch import example_batch
from .grid import Cell
from .results import Mean, Results

RATE_SAMPLES = 64  # test recordings for firing rates


class Picture(NamedTuple):
    """A figure of the page: its file, relative to the page, the heading above it (or none), and its caption."""

    file: str
    heading: str
    caption: str


def write_report(out: Path, cells: Sequence[Cell], results: Results) -> Path:
    """Draw the figures and write both forms of the page; return the path of report.html."""
    finished = [cell for cell, run in zip(cells, results.runs, strict=True) if run.error is None]
    folder = make_folder(out, "figures")
    pictures = []
    say("drawing the figures of the report")
    for name, figure, heading, caption in _figures(finished, results.means):
        file = figures.save(figure, folder / f"{name}.png").relative_to(out)
        pictures.append(Picture(file.as_posix(), heading, caption))
    methods: dict[str, Cell] = {}
    for cell in cells:
        methods.setdefault(cell.method, cell)
    templates = Environment(
        loader=PackageLoader("tmkt.analysis"),
        undefined=StrictUndefined,
        finalize=_for_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["code"] = _code
    text = templates.get_template("report.md").render(
        config=cells[0].config,
        methods=methods,
        seeds=list(dict.fromkeys(cell.seed for cell in cells)),
        counts=sorted({cell.per_class for cell in cells}),
        environment=_environment(finished),
        means={(mean.method, mean.per_class): mean for mean in results.means},
        differences=results.differences,
        failed=results.failed,
        pictures=pictures,
    )
    write_text(out / "report.md", text)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    write_text(out / "report.html", templates.get_template("report.html").render(body=Markup(body)))
    return out / "report.html"


def _for_markdown(value: Any) -> str:
    """Escape a value's text, so that Markdown shows it unchanged. Names and error lines may hold any file name."""
    return value if isinstance(value, Markup) else re.sub(r"([\\`*_\[\]<>|&~])", r"\\\1", visible(str(value)))


def _code(text: str) -> Markup:
    """Return `text` as Markdown code, between more backticks than it has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence} {visible(text)} {fence}")  # Markdown does not show the spaces


def _environment(finished: Sequence[Cell]) -> dict[str, Any] | None:
    """Return tmkt, torch and device of the first run."""
    records = finished[0].folder.metrics() if finished else []
    found = next((record for record in records if record["kind"] == "environment"), None)
    return found and {key: found.get(key, "unknown") for key in ("tmkt", "torch", "device")}


def _figures(finished: Sequence[Cell], means: Sequence[Mean]) -> Iterator[tuple[str, Figure, str, str]]:
    """Yield name, figure, heading and caption of each picture of the page."""
    if not finished:
        return
    caption = "Mean over seeds, 95 % interval over seeds and recordings."
    yield "accuracy", figures.accuracy_by_recordings(means), "Accuracy against number of recordings", caption
    counts = sorted({cell.per_class for cell in finished})
    for heading, count in zip(["Learning curves"] + [""] * len(counts), counts, strict=False):
        metrics: dict[str, list[list[dict[str, Any]]]] = {}
        for cell in finished:
            if cell.per_class == count:
                metrics.setdefault(cell.method, []).append(cell.folder.metrics())
        caption = f"{count} recordings per class: mean over seeds, lowest to highest shaded."
        seeds = {cell.seed for cell in finished if cell.per_class == count}
        title = f"{count} recordings per class to train on, {counted(len(seeds), 'seed')}"
        yield f"learning_curves_{count}", figures.learning_curves(metrics, title), heading, caption
    for heading, count in zip(["Confusion matrices"] + [""] * len(counts), counts, strict=False):
        figure = _confusion([cell for cell in finished if cell.per_class == count])
        yield (
            f"confusion_{count}",
            figure,
            heading,
            f"{count} recordings per class, test recordings of all seeds together.",
        )
    yield from _examples(finished, counts[-1])


def _confusion(cells: Sequence[Cell]) -> Figure:
    classes = cells[0].folder.classes()
    matrices: dict[str, np.ndarray] = {}
    for cell in cells:
        matrix = matrices.setdefault(cell.method, np.zeros((len(classes), len(classes)), dtype=int))
        for row in cell.folder.predictions():
            matrix[row["label"], row["predicted"]] += 1
    return figures.confusion_matrices(matrices, classes)


def _examples(finished: Sequence[Cell], count: int) -> Iterator[tuple[str, Figure, str, str]]:
    """Yield mixed batches, rasters and firing rates of one seed's runs at `count` recordings per class."""
    seed = next(cell.seed for cell in finished if cell.per_class == count)
    cells = [cell for cell in finished if (cell.per_class, cell.seed) == (count, seed)]
    device = device_for(cells[0].config)
    data, place = prepare(cells[0].config), f"{count} recordings per class, seed {seed}"
    heading, rates = "Mixed batches", {}
    rasters: list[tuple[str, Figure, str, str]] = []
    for cell in cells:
        if cell.config.data != cells[0].config.data:  # a method of the grid may have its own data settings
            data = prepare(cell.config)
        mixed = example_batch(cell.config, data, progress=0.5)
        if mixed is not None:
            caption = f"{cell.method}, {place}: what its mixed stream shows half way through training."
            yield f"mixed_batch_{cell.method}", figures.mixed_batch(*mixed), heading, caption
            heading = ""
        _, model, classes = cell.folder.load_model()
        x_seq = data.test.frames[:, :RATE_SAMPLES].to(device).float() * cell.config.data.events.scale
        model.to(device)
        raster = figures.spike_raster(model, x_seq[:, :1], int(data.test.labels[0]), classes)
        rasters.append((f"spike_raster_{cell.method}", raster, "" if rasters else "Spikes", f"{cell.method}, {place}."))
        titles = layer_titles(model)
        rates[cell.method] = {titles[name]: rate for name, rate in firing_rates(model, x_seq).items()}
    yield from rasters
    caption = f"{place}, mean over {x_seq.shape[1]} test recordings and {x_seq.shape[0]} steps."
    yield "firing_rates", figures.rate_bars(rates), "Firing rates", caption
