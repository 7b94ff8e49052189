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
from study import ABLATIONS, COUNTS, METHODS, SEEDS, ranking, read

from tmkt.analysis.statistics import bootstrap, holm

DOCS = Path(__file__).parents[2]
NAMES = (*METHODS[:1], "events_only 2x", *METHODS[1:])
Right = np.ndarray  # float [seeds, recordings]: 1 if right


def load(stage: str) -> dict[tuple[str, int], Right]:
    """(name, recordings per class) -> right, one row per seed, in order; only seeds that all rows of a count have."""
    found: dict[tuple[str, int], dict[int, list[int]]] = defaultdict(dict)
    for record in read(stage):
        found[record["name"], record["count"]][record["seed"]] = [int(c) for c in record["test_right"]]
    common = {
        count: set.intersection(*(set(rows) for (_, c), rows in found.items() if c == count))
        for count in {count for _, count in found}
    }
    runs = {key: np.array([rows[s] for s in sorted(common[key[1]])], float) for key, rows in found.items()}
    if stage == "grid":  # static_only reads no recording, so that one run per seed serves every count
        runs |= {
            ("static_only", c): runs["static_only", 5][: len(runs["tmkt", c])] for c in COUNTS if ("tmkt", c) in runs
        }
    return runs


def interval(values: Right) -> tuple[float, float, float]:
    """Mean and 95 % interval, in per cent."""
    found = bootstrap(values)
    return 100 * found.mean, 100 * found.low, 100 * found.high


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def accuracy(values: Right) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*interval(values))


def gain(difference: Right, p: float | None = None) -> str:
    text = "{:+.1f} ({:+.1f} to {:+.1f})".format(*interval(difference))
    return text if p is None else f"{text}, p = {p:.2g}"


def tuning_table() -> str:
    rows = []
    for method in METHODS:
        (score, setting), *_ = ranked = ranking(method)
        text = ", ".join(f"{key.split('.', 1)[1]} {value}" for key, value in setting.items())
        rows.append([method, text, f"{100 * score:.1f}", f"{100 * ranked[-1][0]:.1f}"])
    return table(["method", "best setting", "validation, %", "worst setting"], rows)


def grid_table(stage: str, counts: Sequence[int]) -> str:
    runs = load(stage)
    rows = [[name, *(accuracy(runs[name, c]) for c in counts)] for name in NAMES if (name, counts[0]) in runs]
    return table(["method", *(f"{c} per class ({len(runs['tmkt', c])} seeds)" for c in counts)], rows)


def paired_table(stage: str, counts: Sequence[int]) -> str:
    runs = load(stage)
    rivals = [name for name in NAMES if name != "tmkt" and (name, counts[0]) in runs]
    differences = [runs["tmkt", c] - runs[name, c] for name in rivals for c in counts]
    p = iter(holm([bootstrap(d).p for d in differences]))
    cells = iter([gain(d, next(p)) for d in differences])
    return table(
        ["tmkt minus", *(f"{c} per class" for c in counts)], [[n, *(next(cells) for _ in counts)] for n in rivals]
    )


def ablation_table() -> str:
    changed = load("ablate")
    seeds = len(changed["no TSM", 5])
    tuned = load("grid")["tmkt", 5][:seeds]
    rows = [["as tuned", validation("grid", "tmkt", seeds), f"{100 * tuned.mean():.1f}", ""]]
    for name in ABLATIONS:
        values = changed[name, 5]
        rows.append([name, validation("ablate", name, seeds), f"{100 * values.mean():.1f}", gain(values - tuned)])
    return table([f"tmkt, 5 per class ({seeds} seeds)", "validation, %", "test, %", "test, minus as tuned"], rows)


def validation(stage: str, name: str, seeds: int) -> str:
    """Return the mean validation accuracy of a row at 5 recordings per class, over the first `seeds` seeds."""
    rows = (r for r in read(stage) if (r["name"], r["count"]) == (name, 5) and r["seed"] in SEEDS[:seeds])
    return f"{100 * float(np.mean([r['validation'] for r in rows])):.1f}"


def longer_table() -> str:
    longer, short = load("longer"), load("grid")
    seeds = len(longer["tmkt", 5])
    rows = []
    for method in ("events_only", "joint", "sliding", "tmkt"):
        values, before = longer[method, 5], short[method, 5][:seeds]
        less = "" if method == "tmkt" else gain(longer["tmkt", 5] - values)
        rows.append([method, f"{100 * before.mean():.1f}", f"{100 * values.mean():.1f}", gain(values - before), less])
    header = [
        f"5 per class ({seeds} seeds)",
        "150 steps, %",
        "450 steps, %",
        "450 minus 150",
        "tmkt minus it, 450 steps",
    ]
    return table(header, rows)


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


def curves() -> Figure:
    """Draw test accuracy against recordings per class."""
    runs, figure = load("grid"), Figure(figsize=(7.5, 4.6))
    axis = figure.subplots()
    shown = [name for name in NAMES if name != "static_only"]  # far below; see the table
    for number, name in enumerate(shown):
        means, lows, highs = np.array([interval(runs[name, c]) for c in COUNTS]).T
        x = np.array(COUNTS) * 1.03 ** (number - len(shown) / 2)  # side by side
        style = {"lw": 2.5, "color": "black"} if name == "tmkt" else {"lw": 1.3}
        axis.errorbar(x, means, [means - lows, highs - means], marker="o", capsize=3, label=name, **style)
    axis.set(xscale="log", xlabel="training recordings per class", ylabel="test accuracy, %")
    axis.set_xticks(COUNTS, [str(c) for c in COUNTS])
    axis.minorticks_off()
    axis.set_title("MNIST images to N-MNIST recordings; 95 % interval over seeds and recordings", fontsize=10)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def main() -> None:
    tables = {
        "tuning": tuning_table,
        "grid": lambda: grid_table("grid", COUNTS),
        "paired": lambda: paired_table("grid", COUNTS),
        "ablation": ablation_table,
        "longer": longer_table,
        "cifar": lambda: grid_table("cifar", [20]),
        "cifar-paired": lambda: paired_table("cifar", [20]),
        "variance": variance_table,
    }
    page = DOCS / "study.md"
    text = page.read_text(encoding="utf-8")
    for name, build in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{build()}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")
    curves().savefig(DOCS / "images" / "study.png", dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
