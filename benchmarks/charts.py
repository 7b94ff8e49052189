"""Charts: a layer's time and memory beside the rivals', bars of their times, a roofline, and scaling. Each PNG carries
a digest of its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.rows import Key, Machine, Measured

matplotlib.use("Agg")
PATTERN = "benchmark-*.png"
COLOURS = {
    "tmkt native": "#1b6ca8",
    "tmkt triton": "#41b6c4",
    "tmkt accelerate": "#08306b",
    "torch.compile": "#d95f02",
    "SpikingJelly": "#7570b3",
    "SpikingJelly precision": "#bcbddc",
    "snnTorch": "#66a61e",
    "norse": "#e7298a",
    "sinabs": "#a6761d",
    "plain loop": "#999999",
    "torch.where": "#999999",
    "tonic": "#e6ab02",
    "numpy bincount": "#cccccc",
    "copy_": "#000000",
}
LABELS = {"T": "time steps T", "N": "neurons N"}
MARKERS = {"float32": "o", "bfloat16": "s", "float16": "^"}


@dataclass(frozen=True)
class Chart:
    name: str
    title: str
    figure: Callable[[Machine], Figure]
    has_rows: Callable[[Machine], bool]

    def file_name(self, machine: Machine) -> str:
        return f"benchmark-{self.name}-{machine.name}.png"

    def draw(self, machine: Machine, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Rows": machine.digest}
        self.figure(machine).savefig(path, dpi=120, bbox_inches="tight", metadata=metadata)


def digest_of(path: Path) -> str | None:
    """Return the digest of the rows from which a chart was drawn; None if there is no such chart."""
    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get("Rows")


def median(measured: Measured, contestant: str, field: str) -> float | None:
    values = sorted(measured.values(contestant, field))
    return values[len(values) // 2] if values else None


def one_of_each(machine: Machine) -> dict[Key, Measured]:
    """Return fp32 cases at the first shape of each operator and name, with one run of ours and of a rival."""
    found: dict[tuple[str, str], tuple[Key, Measured]] = {}
    for key, all_runs in machine.cases().items():
        measured = one_run(all_runs)
        if key.dtype == "float32" and measured.ours and compared(measured):
            found.setdefault((key.op, key.case), (key, measured))
    return dict(found.values())


def one_run(measured: Measured) -> Measured:
    """Return the latest of the runs with the most contestants, because bars of different runs do not compare."""
    run, rows = max(reversed(measured.by_run.items()), key=lambda item: len(item[1]))
    return Measured({run: rows})


def compared(measured: Measured) -> list[str]:
    return [name for name in COLOURS if name != "copy_" and median(measured, name, "times_ours")]


LAYERS = {
    ("lif", "forward + backward"): "LIF",
    ("bn_lif", "forward + backward"): "batch norm + LIF",
    ("bn_lif", "forward + backward, pooled"): "batch norm + LIF\n+ 2x2 average pooling",
}
RIVALS = ("torch.compile", "SpikingJelly", "snnTorch")


def layer_cases(machine: Machine) -> dict[Key, Measured]:
    """Return the cases of the front page: layers in fp32, measured beside all of RIVALS."""
    found = one_of_each(machine).items()
    return {key: m for key, m in found if key[:2] in LAYERS and set(RIVALS) <= set(m.contestants)}


def layers(machine: Machine) -> Figure:
    """Draw milliseconds, and megabytes kept, of a layer's forward and backward."""
    cases = layer_cases(machine)
    figure = Figure(figsize=(10, 0.85 * len(cases) + 1.4))
    axes: Any = figure.subplots(1, 2, sharey=True)
    for axis, field, label in zip(
        axes, ("median_ms", "saved_mb"), ("time, ms (shorter is better)", "memory kept for backward, MB"), strict=True
    ):
        grouped_bars(axis, [values_of(measured, field) for measured in cases.values()])
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(cases)), [LAYERS[key[:2]] for key in cases], fontsize=10)
    axes[0].invert_yaxis()
    bars = axes[0].containers[: 1 + len(RIVALS)]
    names = ["tmkt_kernels", "torch.compile of a plain loop", "SpikingJelly" + ", Triton" * machine.on_gpu, "snnTorch"]
    figure.legend(bars, names, ncols=4, loc="upper center", frameon=False, fontsize=10)
    shape = ", ".join(map(str, next(iter(cases)).shape))
    title = f"One layer, forward + backward, on {machine.device}; [T, B, C, H, W] = [{shape}], float32"
    figure.text(0.5, 0.01, title, ha="center", fontsize=10)
    figure.tight_layout(rect=(0, 0.05, 1, 0.93))
    return figure


def values_of(measured: Measured, field: str) -> list[float]:
    """Return our value first, the faster of CUDA and Triton, then those of RIVALS."""
    return [median(measured, name, field) or 0.0 for name in (measured.fastest, *RIVALS)]


def grouped_bars(axis: Any, groups: list[list[float]]) -> None:
    """Draw bars with values and multiples of ours. A bar that would dwarf the others is cut off, with an arrow."""
    longest, second = (max(sorted(values)[i] for values in groups) for i in (-1, -2))
    end = min(1.25 * longest, 2.2 * second)
    for i, name in enumerate(("tmkt native", *RIVALS)):
        places = [line + 0.2 * (i - 1.5) for line in range(len(groups))]
        axis.barh(places, [min(values[i], end) for values in groups], height=0.18, color=COLOURS[name])
        for place, values in zip(places, groups, strict=True):
            value, right = values[i], min(values[i], end)
            times = f" ({value / values[0]:.1f}x)" if i else ""
            note = f" {shown(value)}{times} " + ("\u2192 " if value > end else "")
            style = {"ha": "right", "color": "white"} if right > 0.8 * end else {"ha": "left"}
            axis.text(right, place, note, va="center", fontsize=8, **style)
    axis.set_xlim(0, end)


def speed(machine: Machine) -> Figure:
    """Draw the time over that of our fastest, on a logarithmic axis; shorter is faster."""
    cases = one_of_each(machine)
    lengths = [len(compared(measured)) + 1 for measured in cases.values()]
    figure = Figure(figsize=(9, 0.2 * sum(lengths) + 1))
    axis: Any = figure.subplots()
    place, ticks = 0, []
    for (key, measured), length in zip(cases.items(), lengths, strict=True):
        for i, name in enumerate(compared(measured)):
            ratio = median(measured, name, "times_ours")
            axis.barh(place + i, ratio, left=0, height=0.85, color=COLOURS[name])
            milliseconds = median(measured, name, "median_ms")
            axis.text(max(ratio, 1) * 1.04, place + i, f"{name}  {shown(milliseconds)} ms", va="center", fontsize=7)
        ticks.append((place + (length - 2) / 2, f"{key.title}\n[{', '.join(map(str, key.shape))}]"))
        place += length
    axis.set_xscale("log")
    axis.set_xlim(0.5, axis.get_xlim()[1] * 3)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("time over that of our fastest operator, float32 (log scale; shorter is faster)")
    axis.set_title(machine.name, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def shown(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def ceilings(machine: Machine) -> dict[str, tuple[float, float]]:
    """Return dtype -> (GB/s of copy_, best of the cases with that yardstick; Gop/s of the machine's fastest)."""
    operations: dict[str, float] = {}
    copies: dict[str, float] = {}
    for key, measured in machine.cases().items():
        if measured.ours and "copy_" in measured.yardstick:
            copies[key.dtype] = max(copies.get(key.dtype, 0), median(measured, "copy_", "gb_per_s") or 0)
    for key, measured in machine.cases().items():
        for name in ("matrix product", "convolution"):
            operations[key.dtype] = max(operations.get(key.dtype, 0), median(measured, name, "gop_per_s") or 0)
    return {dtype: (copies[dtype], most) for dtype, most in operations.items() if most}


def roofline(machine: Machine) -> Figure:
    """Draw operations per second against operations per byte, below what copy_ and torch's kernels reach, fp32."""
    bandwidth, peak = ceilings(machine)["float32"]
    figure = Figure(figsize=(8, 5))
    axis: Any = figure.subplots()
    points = []
    for key, measured in machine.cases().items():
        if key.dtype != "float32":
            continue
        for name in measured.ours:
            moved, done = median(measured, name, "bytes"), median(measured, name, "operations")
            rate = median(measured, name, "gop_per_s")
            if moved and done and rate:
                points.append((done / moved, rate, key, name))
    low, high = min(p[0] for p in points) / 2, max(max(p[0] for p in points), peak / bandwidth) * 4
    axis.plot([low, peak / bandwidth, high], [low * bandwidth, peak, peak], color="black", lw=1.2)
    axis.text(low * 1.1, low * bandwidth * 2.2, f"copy_: {bandwidth:.0f} GB/s", rotation=30, fontsize=8)
    axis.text(high, peak * 1.1, f"matrix product or convolution: {peak:.0f} Gop/s", ha="right", fontsize=8)
    operators = list(dict.fromkeys(key.title for _, _, key, _ in points))
    colours = matplotlib.colormaps["tab20"]  # ten dark colours, and a light one beside each
    for intensity, rate, key, name in points:
        i = operators.index(key.title)
        colour = colours(2 * i % 20 + i // 10)
        axis.plot(intensity, rate, "o" if name.endswith("native") else "D", color=colour, label=key.title, ms=6)
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=7, loc="lower right")
    axis.set(xscale="log", yscale="log", xlabel="operations per byte, by count", ylabel="Gop/s")
    axis.set_title(f"{machine.name}: our operators beneath the roofline, float32", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def scaling(machine: Machine) -> Figure:
    """Draw nanoseconds per value against T at a fixed number of values, and against the number of neurons."""
    columns = [(sweep, machine.cases(sweep)) for sweep in LABELS]
    titles = {sweep: list(dict.fromkeys(key.title for key in cases)) for sweep, cases in columns}
    counts = [len(found) for found in titles.values()]
    height = max(counts) + (len(set(counts)) == 1)  # leaves room for the legend
    figure = Figure(figsize=(11, 3.3 * height))
    axes: Any = figure.subplots(height, 2, squeeze=False)
    entries: dict[str, Any] = {}
    for column, (sweep, cases) in enumerate(columns):
        for line in range(height):
            axis = axes[line, column]
            if line >= len(titles[sweep]):
                axis.axis("off")
                continue
            title = titles[sweep][line]
            curves(axis, {key: measured for key, measured in cases.items() if key.title == title}, sweep)
            axis.set(xscale="log", yscale="log", xlabel=LABELS[sweep], ylabel="ns per value", title=title)
            axis.tick_params(axis="x", which="minor", labelbottom=False)  # labels overlap within one decade
            handles, labels = axis.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
    figure.suptitle(f"{machine.name}: a flat line is a linear cost", fontsize=10)
    free = axes[-1, counts.index(min(counts))]
    free.legend(entries.values(), entries.keys(), fontsize=8, ncols=2, loc="center")
    figure.tight_layout()
    return figure


def curves(axis: Any, cases: dict[Key, Measured], sweep: str) -> None:
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for key, measured in cases.items():
        values = 1
        for n in key.shape:
            values *= n
        for name in measured.contestants:
            milliseconds = median(measured, name, "median_ms")
            if name in COLOURS and milliseconds:
                x = key.shape[0] if sweep == "T" else values // key.shape[0]
                lines.setdefault((name, key.dtype), []).append((x, milliseconds * 1e6 / values))
    for (name, dtype), points in lines.items():
        x, y = zip(*sorted(points), strict=True)
        style = "-" if dtype == "float32" else "--" if dtype == "bfloat16" else ":"
        axis.plot(x, y, style, marker=MARKERS[dtype], ms=4, color=COLOURS[name], label=f"{name}, {dtype}")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


CHARTS = (
    Chart("layers", "One layer: time and memory beside the rivals", layers, lambda machine: bool(layer_cases(machine))),
    Chart("speed", "Times of the rivals in multiples of ours", speed, lambda machine: bool(one_of_each(machine))),
    Chart("roofline", "Our operators beneath the roofline", roofline, lambda machine: "float32" in ceilings(machine)),
    Chart("scaling", "Time per value against T and N", scaling, lambda machine: bool(machine.cases("T"))),
)
