"""Draws docs/images/simulator_*.png and prints the figures of docs/simulator.md: simulated recordings beside real ones.

    TMKT_DATA=FOLDER python docs/simulator_figures.py

Reads N-MNIST-small, MNIST, an N-Caltech101 recording and its image, cifar10_small.npz and the strokes of Omniglot in
$TMKT_DATA.
"""

import dataclasses
import itertools
import os
import tempfile
import zipfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import tmkt_kernels
from tmkt.data.strokes import read_strokes, render_strokes, simulate_strokes
from tmkt_kernels import events as ev

DATA = Path(os.environ.get("TMKT_DATA", "data"))
OUT = Path(__file__).parent / "images"
SENSOR, BIN_US, END_US = (34, 34), 5_000, 315_000
SACCADES_US = np.array([0, 105_000, 210_000, 315_000])


def held_out() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the 760 recordings of N-MNIST-small that the frames were not fitted to, and the MNIST images they show."""
    images = np.fromfile(DATA / "MNIST/raw/train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    paths = sorted((DATA / "N-MNIST-small").rglob("*.bin"))
    paths = [path for k, path in enumerate(paths) if k % 20]  # every 20th was fitted
    return [ev.read_bin(path) for path in paths], [images[int(path.stem) - 1] for path in paths]


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


def near_ink(image: np.ndarray) -> np.ndarray:
    """Return bool [34, 34]: pixels at most 7 from ink, which the saccades move by less than 4."""
    ink = np.argwhere(np.pad(image, 3))
    pixels = np.indices(SENSOR).reshape(2, -1, 1)
    return (np.hypot(*(pixels - ink.T[:, None])).min(1) <= 7).reshape(SENSOR)


def background_rate(recordings: list[np.ndarray], images: list[np.ndarray]) -> float:
    """Return events per pixel and second far from ink, without the one hot pixel of the real sensor."""
    far = np.array([~near_ink(image) for image in images])
    far[:, 13, 1] = False
    counts = np.array([ev.to_frames(events, 1, SENSOR)[0].sum(0) for events in recordings])
    return float((counts * far).sum() / (far.sum() * END_US / 1e6))


def intervals_ms(events: np.ndarray) -> np.ndarray:
    """Return times below 50 ms between successive events of one polarity at one pixel."""
    events = events[np.lexsort((events["t"], events["p"], events["x"], events["y"]))]
    place, interval = events[["x", "y", "p"]], np.diff(events["t"]) / 1e3
    return interval[(place[1:] == place[:-1]) & (interval < 50)]


def statistics(recordings: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return figures of each recording, [N] or, for the three saccades, [N, 3]."""
    between = [np.histogram(e["t"], [90_000, 105_000, 195_000, 210_000])[0][[0, 2]].sum() / 0.03 for e in recordings]
    per_pixel = [ev.to_frames(e, 1, SENSOR)[0].sum(0) for e in recordings]
    return {
        "events": np.array([len(e) for e in recordings]),
        "events per second in 90 to 105 and 195 to 210 ms": np.array(between),
        "share of on events": np.array([e["p"].mean() for e in recordings]),
        "shares of the saccades": np.array([np.histogram(e["t"], SACCADES_US)[0] / len(e) for e in recordings]),
        "last event, ms": np.array([e["t"][-1] / 1e3 for e in recordings]),
        "pixels with more than two events": np.array([(counts > 2).sum() for counts in per_pixel]),
    }


def rates(recordings: list[np.ndarray], bin_us: int) -> np.ndarray:
    """Return the mean number of events in bins of `bin_us`."""
    return np.mean([np.histogram(e["t"], np.arange(0, END_US + 1, bin_us))[0] for e in recordings], axis=0)


def alike(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the mean correlation of the frames of two recordings, 10 bins, both polarities."""
    frames = [[ev.to_frames(e, 10, SENSOR).ravel() for e in recordings] for recordings in (some, others)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*frames, strict=True)]))


def print_figures(images: list[np.ndarray], sides: dict[str, list[np.ndarray]]) -> None:
    """Print what the page says of real and simulated recordings."""
    for name, recordings in sides.items():
        print(f"{name}: {len(recordings)} recordings")
        for label, values in statistics(recordings).items():
            low, median, high = np.percentile(values, [5, 50, 95], axis=0).round(3)
            print(f"  {label}: {values.mean(0).round(3)} +- {values.std(0).round(3)}, median {median}, {low} to {high}")
        intervals = np.concatenate([intervals_ms(events) for events in recordings])
        print(f"  interval of one polarity at a pixel, ms: {np.percentile(intervals, [25, 50, 75]).round(1)}")
        print(f"  background events per pixel and second: {background_rate(recordings, images):.3f}")
        print(f"  events per 10 ms: {' '.join(f'{n:.0f}' for n in rates(recordings, 10_000))}")
    real, simulated = sides.values()
    swapped = [simulate(image, k, dark_on_bright=False) for k, image in enumerate(images)]
    again = [simulate(image, k + len(images)) for k, image in enumerate(images)]
    print(f"counts correlate with {np.corrcoef([len(e) for e in real], [len(e) for e in simulated])[0, 1]:.3f}")
    print(f"frames correlate with {alike(real, simulated):.3f}, digits bright on dark with {alike(real, swapped):.3f}, "
          f"those of two simulations with {alike(simulated, again):.3f}")  # fmt: skip


def nmnist() -> None:
    real, images = held_out()
    simulated = [simulate(image, k) for k, image in enumerate(images)]
    sides = {"real": real, "simulated": simulated}
    print_figures(images, sides)

    figure = plt.figure(figsize=(9, 6), layout="constrained")
    rows = figure.add_gridspec(3, 6)
    chosen = range(0, len(real), len(real) // 6)
    for column, k in enumerate(list(chosen)[:6]):
        for row, (events, title) in enumerate(((real[k], "real"), (simulated[k], "simulated"))):
            part = events[events["t"] < SACCADES_US[1]]
            show(figure.add_subplot(rows[row, column]), picture(part, SENSOR), title)
    axis = figure.add_subplot(rows[2, :3])
    for name, recordings in sides.items():
        axis.plot(np.arange(0, END_US, BIN_US) / 1e3, rates(recordings, BIN_US) * 1e3 / BIN_US, label=name)
    axis.set(xlabel="ms", ylabel="events / ms")
    axis = figure.add_subplot(rows[2, 3:])
    for name, recordings in sides.items():
        axis.hist([e["p"].mean() for e in recordings], np.linspace(0.47, 0.57, 41), alpha=0.6, label=name)
    axis.legend()
    axis.set(xlabel="share of on events", ylabel="recordings")
    figure.suptitle("First saccade of N-MNIST recordings, on (blue) minus off (red), and of their simulated twins")
    figure.savefig(OUT / "simulator_nmnist.png", dpi=110)


REGION, SACCADE_US = (152, 174), 100_000  # pixels that an N-Caltech101 recording keeps, in blocks of 4x4


def face() -> tuple[np.ndarray, np.ndarray]:
    """Return the recording of N-Caltech101 at hand, and its image [H, W]."""
    image = Image.open(DATA / "caltech101/Faces_easy/image_0001.jpg").convert("L")
    return ev.read_bin(DATA / "formats/ncaltech101_faces_easy_0001.bin"), np.asarray(image)


def face_frames(image: np.ndarray, motion: tmkt_kernels.Motion, bins: int) -> np.ndarray:
    """Return the frames [B, bins, 2, H, W] of B simulations, in blocks of 4x4 pixels."""
    n, size = len(motion), (REGION[0] // 4, REGION[1] // 4)
    camera = tmkt_kernels.Camera.draw(n, "ncaltech101", generator=torch.Generator().manual_seed(0))
    images, index = torch.tensor(image)[None, None], torch.zeros(n, dtype=torch.int64)
    frames = tmkt_kernels.simulate_frames(
        images, index, motion, camera, bins, size, sensor_size=REGION, seed=torch.arange(n)
    )
    return frames.transpose(0, 1).numpy().astype(float)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def print_face_figures(real: np.ndarray, image: np.ndarray) -> None:
    """Print what the page says of the recording of N-Caltech101 and of 64 simulations."""
    preset = tmkt_kernels.Motion.preset(64, "ncaltech101")
    other = torch.tensor([ev.N_MNIST_PATH], dtype=torch.float64).repeat(64, 1, 1)
    motions = {
        "the preset": preset,
        "the path negated": dataclasses.replace(preset, path=-preset.path),
        "N-MNIST's path": dataclasses.replace(preset, path=other),
        "fill 1": dataclasses.replace(preset, fill=torch.ones_like(preset.fill)),
    }
    size = (REGION[0] // 4, REGION[1] // 4)
    for bins in (30, 10):
        truth = ev.to_frames(real, bins, REGION, size, span=(0, 3 * SACCADE_US))
        for name, motion in motions.items():
            frames = face_frames(image, motion, bins)
            one = np.mean([correlation(frame, truth) for frame in frames])
            two = np.mean([correlation(a, b) for a, b in itertools.pairwise(frames)])
            print(f"{name}, {bins} bins: one simulation correlates with {one:.3f}, the mean of all with "
                  f"{correlation(frames.mean(0), truth):.3f}, two of them with {two:.3f}")  # fmt: skip
    truth = ev.to_frames(real, 30, REGION, size, span=(0, 3 * SACCADE_US))
    for name, frames in {"real": truth[None].astype(float), "simulated": face_frames(image, preset, 30)}.items():
        counts = frames.sum((-2, -1))  # [B, 30, 2]
        total = counts.sum((1, 2))
        print(f"{name}: {total.mean():,.0f} events ({total.min():,.0f} to {total.max():,.0f}), off and on "
              f"{counts.mean(0).sum(0).round()}, by saccade {counts.mean(0).reshape(3, 20).sum(1).round()}, "
              f"per 10 ms {counts.mean(0).sum(1).round().astype(int).tolist()}")  # fmt: skip


def ncaltech101() -> None:
    real, image = face()
    print_face_figures(real, image)
    motion = tmkt_kernels.Motion.preset(1, "ncaltech101")
    camera = tmkt_kernels.Camera.draw(1, "ncaltech101", generator=torch.Generator().manual_seed(0))
    simulated = ev.simulate_recording(image, motion, camera, sensor_size=REGION, seed=0)
    figure, axes = plt.subplots(2, 7, figsize=(9, 3.6), layout="constrained", width_ratios=[1.4, *[1] * 6])
    axes[0, 0].imshow(image, cmap="gray")
    axes[0, 0].axis("off")
    for row, events, name in ((0, real, "real"), (1, simulated, "simulated")):
        for k, axis in enumerate(axes[row, 1:]):
            begin = k * SACCADE_US // 2
            part = events[(events["t"] >= begin) & (events["t"] < begin + SACCADE_US // 2)]
            show(axis, picture(part, REGION), f"{name}, {begin // 1000} ms")
        rate = np.histogram(events["t"], np.arange(0, 3 * SACCADE_US + 1, BIN_US))[0] * 1e3 / BIN_US
        axes[1, 0].plot(np.arange(0, 3 * SACCADE_US, BIN_US) / 1e3, rate, label=name)
    axes[1, 0].set(xlabel="ms", ylabel="events / ms")
    axes[1, 0].legend(fontsize=6)
    figure.suptitle(
        "An N-Caltech101 recording, on (blue) minus off (red) in 50 ms, and its simulated twin", fontsize=10
    )
    figure.savefig(OUT / "simulator_ncaltech101.png", dpi=110)


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


def cameras() -> None:
    """Draw one image in front of nine random cameras, with the same motion."""
    image = np.load(DATA / "cifar10_small.npz")["train_images"][0].max(-1)
    camera = tmkt_kernels.Camera.draw(9, generator=torch.Generator().manual_seed(0))
    images, index = torch.from_numpy(image)[None, None], torch.zeros(9, dtype=torch.int64)
    frames = tmkt_kernels.simulate_frames(
        images, index, tmkt_kernels.Motion.saccades(9), camera, 3, sensor_size=(64, 64), seed=0
    )
    figure, axes = plt.subplots(2, 5, figsize=(9, 4.4), layout="constrained")
    axes.flat[0].imshow(image, cmap="gray")
    axes.flat[0].set_title("the image", fontsize=8)
    axes.flat[0].axis("off")
    for k, axis in enumerate(axes.flat[1:]):
        counts = (frames[0, k, 1].int() - frames[0, k, 0].int()).numpy()
        axis.imshow(counts, cmap="RdBu", vmin=-8, vmax=8)
        axis.axis("off")
        axis.set_title(
            f"on {camera.threshold[k]:.2f}, off {camera.threshold_off[k]:.2f},\n{camera.latency_us[k] / 1e3:.1f} ms, "
            f"noise {camera.noise_rate[k]:.2f}", fontsize=8
        )  # fmt: skip
    print(f"nine random cameras: {sorted(frames.sum((0, 2, 3, 4)).tolist())} events")
    figure.suptitle("First saccade seen by nine random cameras: thresholds, latency, background events per second")
    figure.savefig(OUT / "simulator_cameras.png", dpi=110)


if __name__ == "__main__":
    nmnist()
    ncaltech101()
    drift_and_strokes()
    cameras()
