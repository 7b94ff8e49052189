"""Tables and figures of docs/study.md from the runs beside this file: `python docs/results/study/report.py`.

Each table replaces the text between <!-- NAME: begin --> and <!-- NAME: end --> in docs/study.md. Intervals and p
values are those of tmkt.analysis.statistics; for a difference the seeds and recordings of both sides are the same.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from runs import METHODS, read
from search import finished, ranking, searched
from study import LONGER, TWINS
from targets import TARGETS, Target

from tmkt.analysis.statistics import bootstrap, holm

DOCS = Path(__file__).parents[2]
Right = np.ndarray  # float [seeds, recordings]: 1 if right
OURS = "bridge"


def load(target: Target, stage: str) -> dict[tuple[str, int | None], Right]:
    """(name, recordings per class) -> right, one row per seed, in order; only seeds that all rows of a count have."""
    found: dict[tuple[str, int | None], dict[int, list[int]]] = defaultdict(dict)
    for record in read(target, stage):
        found[record["name"], record["count"]][record["seed"]] = [int(c) for c in record["test_right"]]
    common = {
        count: set.intersection(*(set(rows) for (_, c), rows in found.items() if c == count))
        for count in {count for _, count in found}
    }
    return {key: np.array([rows[s] for s in sorted(common[key[1]])], float) for key, rows in found.items()}


def counts(target: Target) -> list[int | None]:
    """Return the numbers of recordings per class at which every run is done, fewest first."""
    records = read(target, "grid")
    done = [c for c in target.counts if sum(r["count"] == c for r in records) == target.seeds * len(METHODS)]
    return sorted(done, key=lambda count: count or 1_000)


def named(count: int | None) -> str:
    return "all" if count is None else f"{count} per class"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def accuracy(values: Right) -> str:
    found = bootstrap(values)
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def gain(difference: Right, comparisons: int = 1) -> str:
    """Mean difference with its interval; of `comparisons` such intervals all cover the mean, 19 times in 20."""
    found = bootstrap(difference, level=1 - 0.05 / comparisons)
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def tuning_table(target: Target) -> str:
    rows = []
    for method in METHODS:
        values = [trial.value or 0.0 for trial in finished(searched(target, method))]
        score, setting = ranking(target, method)[0]
        shown = (
            f"{key.split('.')[-1]} {value:.3g}" if isinstance(value, float) else f"{key.split('.')[-1]} {value}"
            for key, value in sorted(setting.items())
            if value not in (0, False)
        )
        rows.append(
            [method, ", ".join(shown), f"{100 * score:.1f}", f"{100 * min(values):.1f} to {100 * max(values):.1f}"]
        )
    return table(["method", "its setting", "validation, %", "the trials, of half the steps and other seeds, %"], rows)


def grid_table(target: Target) -> str:
    runs = load(target, "grid")
    header = [f"{named(c)} ({len(runs[OURS, c])} seeds)" for c in counts(target)]
    return table(["method", *header], [[m, *(accuracy(runs[m, c]) for c in counts(target))] for m in METHODS])


def paired_table(target: Target) -> str:
    """Differences to each other method; the six comparisons of one number of recordings are a family."""
    runs, rivals = load(target, "grid"), [m for m in METHODS if m != OURS]
    columns = []
    for count in counts(target):
        differences = [runs[OURS, count] - runs[m, count] for m in rivals]
        p = holm([bootstrap(d).p for d in differences])
        columns.append([f"{gain(d, len(p))}, p = {q:.2g}" for d, q in zip(differences, p, strict=True)])
    header = [f"{OURS} minus", *(named(c) for c in counts(target))]
    return table(header, [[m, *cells] for m, *cells in zip(rivals, *columns, strict=True)])


def ablation_table(target: Target) -> str:
    count = target.counts[0]
    changed = {name: values for (name, _), values in load(target, "ablate").items()}
    seeds = min(map(len, changed.values()))
    tuned = load(target, "grid")[OURS, count][:seeds]
    rows = [["as tuned", f"{100 * tuned.mean():.1f}", ""]]
    for name, values in changed.items():
        rows.append(
            [name.replace("data.", "").replace("transfer.", ""), f"{100 * values.mean():.1f}", gain(values - tuned)]
        )
    return table([f"{OURS}, {named(count)} ({seeds} seeds)", "test, %", "minus as tuned"], rows)


def changed_table(target: Target, stage: str, methods: Sequence[str], before: str, after: str) -> str:
    """The runs of `stage` beside those of the grid, at the number of recordings that the settings are tuned at."""
    count = target.counts[0]
    changed, grid = load(target, stage), load(target, "grid")
    seeds, rows = len(changed[OURS, count]), []
    for method in methods:
        values, old = changed[method, count], grid[method, count][:seeds]
        less = "" if method == OURS else gain(changed[OURS, count] - values)
        rows.append([method, f"{100 * old.mean():.1f}", f"{100 * values.mean():.1f}", gain(values - old), less])
    header = [f"{named(count)} ({seeds} seeds)", f"{before}, %", f"{after}, %", "gain"]
    return table([*header, f"{OURS} minus it, {after}"], rows)


def longer_table(target: Target) -> str:
    return changed_table(target, "longer", LONGER, "600 steps", "1,800 steps")


def twins_table(target: Target) -> str:
    return changed_table(target, "twins", TWINS, "without twins", "with twins")


def variance_table() -> str:
    """Trace of the covariance, TSM over whole samples: geometric mean and range over seeds, and the noise's share."""
    text = (Path(__file__).parent / "gradient_variance.jsonl").read_text(encoding="utf-8")
    found: dict[tuple[str, int, float], dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in map(json.loads, text.splitlines()):
        found[record["varied"], record["steps"], record["ratio"]][record["mixing"]].append(record)
    rows = []
    for (varied, steps, r), sides in sorted(found.items()):
        ours, theirs = sides["time_step"], sides["sample"]
        logs = [np.log(a["trace"] / b["trace"]) for a, b in zip(ours, theirs, strict=True)]
        ratio = f"{np.exp(np.mean(logs)):.2f} ({np.exp(min(logs)):.2f} to {np.exp(max(logs)):.2f})"
        noise = (np.mean([x["trace"] / (x["trace"] + x["mean_squared_norm"]) for x in side]) for side in (ours, theirs))
        rows.append([varied, str(steps), f"{r}", ratio, *(f"{share:.2f}" for share in noise)])
    header = ["drawn anew", "steps trained", "r", "trace, TSM / whole", "noise share, TSM", "noise share, whole"]
    return table(header, rows)


def curves(target: Target, title: str) -> Figure:
    """Draw test accuracy against recordings per class, and validation accuracy during the training."""
    runs, shown = load(target, "grid"), counts(target)
    figure = Figure(figsize=(11.5, 4.6))
    left, right = figure.subplots(1, 2)
    for number, method in enumerate(METHODS):
        style = {"lw": 2.5, "color": "black"} if method == OURS else {"lw": 1.3, "color": f"C{number}"}
        found = [bootstrap(runs[method, c]) for c in shown]
        means, lows, highs = (100 * np.array([getattr(f, side) for f in found]) for side in ("mean", "low", "high"))
        x = np.arange(len(shown)) + 0.05 * (number - len(METHODS) / 2)  # side by side
        left.errorbar(x, means, [means - lows, highs - means], marker="o", capsize=3, label=method, **style)
        of_method = [r["curve"] for r in read(target, "grid") if (r["name"], r["count"]) == (method, target.counts[0])]
        right.plot(60 * np.arange(1, 1 + len(of_method[0])), 100 * np.mean(of_method, 0), label=method, **style)
    left.set(xlabel="training recordings per class", ylabel="test accuracy, %", title="95 % intervals")
    left.set_xticks(range(len(shown)), ["all" if c is None else str(c) for c in shown])
    right.set(
        xlabel="optimiser steps", ylabel="validation accuracy, %", title=f"{named(target.counts[0])}, mean of seeds"
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle(title)
    return figure


def main() -> None:
    page = DOCS / "study.md"
    text = page.read_text(encoding="utf-8")
    tables = {"variance": variance_table}
    for name, target in TARGETS.items():
        for kind, build in {
            "tuning": tuning_table,
            "grid": grid_table,
            "paired": paired_table,
            "ablation": ablation_table,
            "longer": longer_table,
            "twins": twins_table,
        }.items():
            tables[f"{name}-{kind}"] = lambda build=build, target=target: build(target)
    for name, build in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{build()}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")
    titles = {"nmnist": "MNIST images to N-MNIST recordings", "caltech": "Caltech101 images to simulated recordings"}
    for name, title in titles.items():
        if counts(TARGETS[name]):
            path = DOCS / "images" / f"study-{name}.png"
            curves(TARGETS[name], title).savefig(path, dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
