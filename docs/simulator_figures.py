"""Draws docs/images/simulator_*.png and prints their figures: simulated recordings beside real ones.

    TMKT_DATA=FOLDER python docs/simulator_figures.py

Reads N-MNIST-small, MNIST, cifar10_small.npz and the strokes of Omniglot in $TMKT_DATA.
"""

import os
import tempfile
import zipfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tmkt.data.strokes import read_strokes, render_strokes, simulate_strokes
from tmkt_kernels import events as ev

DATA = Path(os.environ.get("TMKT_DATA", "data"))
OUT = Path(__file__).parent / "images"
SENSOR, BIN_US, END_US = (34, 34), 5_000, 315_000
SACCADES_US = np.array([0, 105_000, 210_000, 315_000])


def twins(step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return real recordings of N-MNIST-small, every `step`-th, each with the MNIST image that it shows."""
    images = np.fromfile(DATA / "MNIST/raw/train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    paths = sorted((DATA / "N-MNIST-small").rglob("*.bin"))[::step]
    return [(ev.read_bin(path), images[int(path.stem) - 1]) for path in paths]


def simulate(image: np.ndarray, seed: int, *, dark_on_bright: bool = True) -> np.ndarray:
    return ev.simulate_saccades(255 - image if dark_on_bright else image, seed=seed)


def picture(events: np.ndarray, sensor: tuple[int, int]) -> np.ndarray:
    """Return on minus off events per pixel, as one frame."""
    frames = ev.to_frames(events, 1, sensor)[0].astype(int)
    return frames[1] - frames[0]


def show(axis, counts: np.ndarray, title: str = "") -> None:
    limit = max(1.0, float(np.percentile(np.abs(counts), 99)))
    axis.imshow(counts, cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def statistics(recordings: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return per recording: rates (1/s) overall and between saccades, shares of on events and of the saccades [3]."""
    between = [np.histogram(e["t"], [90_000, 105_000, 195_000, 210_000])[0][[0, 2]].sum() / 0.03 for e in recordings]
    return {
        "events a second": np.array([len(e) / (END_US / 1e6) for e in recordings]),
        "events a second in 90 to 105 and 195 to 210 ms": np.array(between),
        "share of on events": np.array([e["p"].mean() for e in recordings]),
        "share in saccade 1, 2, 3": np.array([np.histogram(e["t"], SACCADES_US)[0] / len(e) for e in recordings]),
    }


def nmnist() -> None:
    pairs = twins(4)
    real, simulated = [e for e, _ in pairs], [simulate(image, k) for k, (_, image) in enumerate(pairs)]
    for name, values in statistics(real).items():
        other = statistics(simulated)[name]
        print(f"{name}: real {values.mean(0).round(3)} +- {values.std(0).round(3)}, simulated "
              f"{other.mean(0).round(3)} +- {other.std(0).round(3)}")  # fmt: skip
    for dark in (True, False):
        alike = [
            np.corrcoef(*(ev.to_frames(e, 10, SENSOR).ravel() for e in (r, simulate(image, k, dark_on_bright=dark))))
            for k, (r, image) in enumerate(pairs)
        ]
        print(f"{'dark on bright' if dark else 'bright on dark'}: frames correlate with the real ones with "
              f"{np.mean([c[0, 1] for c in alike]):.3f}")  # fmt: skip

    figure = plt.figure(figsize=(9, 6), layout="constrained")
    rows = figure.add_gridspec(3, 6)
    chosen = range(0, len(pairs), len(pairs) // 6)
    for column, k in enumerate(list(chosen)[:6]):
        for row, (events, title) in enumerate(((real[k], "real"), (simulated[k], "simulated"))):
            part = events[events["t"] < SACCADES_US[1]]
            show(figure.add_subplot(rows[row, column]), picture(part, SENSOR), title)
    axis = figure.add_subplot(rows[2, :3])
    for recordings, name in ((real, "real"), (simulated, "simulated")):
        counts = np.mean([np.histogram(e["t"], np.arange(0, END_US + 1, BIN_US))[0] for e in recordings], axis=0)
        axis.plot(np.arange(0, END_US, BIN_US) / 1e3, counts * 1e3 / BIN_US, label=name)
    axis.set(xlabel="ms", ylabel="events / ms")
    axis.legend()
    axis = figure.add_subplot(rows[2, 3:])
    for recordings, name in ((real, "real"), (simulated, "simulated")):
        axis.hist([e["p"].mean() for e in recordings], np.linspace(0.42, 0.62, 41), alpha=0.6, label=name)
    axis.set(xlabel="share of on events", ylabel="recordings")
    figure.suptitle("First saccade of N-MNIST recordings, on (blue) minus off (red), and of their simulated twins")
    figure.savefig(OUT / "simulator_nmnist.png", dpi=110)


def drift_and_strokes() -> None:
    figure, axes = plt.subplots(4, 7, figsize=(9, 5.6), layout="constrained")
    images = np.load(DATA / "cifar10_small.npz")["train_images"].max(-1)
    rows = [(images[k], ev.simulate_drift(images[k], seed=k), (128, 128), 1) for k in (0, 7)]
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(DATA / "omniglot/strokes_background_small1.zip") as archive,
    ):
        names = sorted(n for n in archive.namelist() if n.endswith(".txt") and not n.startswith("__"))
        for name in names[:1800:900]:
            path = archive.extract(name, folder)
            rows.append((render_strokes(read_strokes(path), (64, 64))[-1], simulate_strokes(path, seed=0), (64, 64), 4))
    for row, (image, events, sensor, every) in zip(axes, rows, strict=True):
        row[0].imshow(image, cmap="gray")
        row[0].axis("off")
        frames = ev.to_frames(events, 24, sensor).astype(int)
        for axis, t in zip(row[1:], range(0, 6 * every, every), strict=True):
            show(axis, frames[t, 1] - frames[t, 0], f"{t + 1} of 24")
        print(
            f"simulated on {sensor}: {len(events)} events in {events['t'][-1] / 1e6:.2f} s, {events['p'].mean():.3f} on"
        )
    figure.suptitle("Simulated: CIFAR-10 images that drift, Omniglot characters being written", fontsize=10)
    figure.savefig(OUT / "simulator_drift_strokes.png", dpi=110)


if __name__ == "__main__":
    nmnist()
    drift_and_strokes()
