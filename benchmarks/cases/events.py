"""`events`: a recording of N-Caltech101's mean length, binned, and read from its file into small frames."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.case import Case, Contestant, Inputs, Shape, Target, Traffic, copy
from benchmarks.rivals import is_installed, version
from tmkt_kernels import events as ev

SENSOR = (240, 180)
SIZE = (48, 48)
BIN_US = 30_000


def recording(count: int, T: int) -> np.ndarray:
    """Random events over T bins of BIN_US, none on an edge between bins, where tonic's definition differs from ours."""
    random = np.random.default_rng(0)
    t = np.sort(random.integers(1, T * BIN_US, count))
    t += t % BIN_US == 0
    t[0], t[-1] = 0, T * BIN_US
    made = np.empty(count, ev.EVENT_DTYPE)
    made["x"], made["y"] = random.integers(0, SENSOR[0], count), random.integers(0, SENSOR[1], count)
    made["t"], made["p"] = np.sort(t), random.integers(0, 2, count)
    return made


@functools.cache
def folder() -> tempfile.TemporaryDirectory:
    """Folder of the recordings, deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="tmkt-events-")


def inputs(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    T, count = shape
    made = recording(count, T)
    path = Path(folder().name) / f"{count}.bin"
    ev.write_bin(path, made)
    data = torch.from_numpy(made["t"].copy())
    return Inputs(T=T, events=made, path=path, data=data, out=torch.empty_like(data))


def counts(inputs: Inputs) -> np.ndarray:
    """[T, 2, H, W] by definition, in numpy: bin floor((t - t_first) T / (t_last - t_first + 1))."""
    e, (W, H) = inputs.events, SENSOR
    t = e["t"] - e["t"][0]
    step = t * inputs.T // (t[-1] + 1)
    cell = ((step * 2 + e["p"]) * H + e["y"]) * W + e["x"]
    return np.bincount(cell, minlength=inputs.T * 2 * H * W).reshape(inputs.T, 2, H, W)


def equal_counts(lost: int) -> Callable[[Any, Any], None]:
    """Check equality bit for bit, except for the last event if it is `lost`, because tonic drops it."""

    def check(result: Any, expected: Any) -> None:
        difference = expected["counts"] - result
        assert np.abs(difference).sum() == lost, f"{np.abs(difference).sum()} events counted otherwise"
        assert difference[expected["last"]] == lost

    return check


def equal_sum(lost: int) -> Callable[[Any, Any], None]:
    """Check that frames of SIZE hold all events. Ours spreads them; tonic interpolates, which keeps the mean."""

    def check(result: Any, expected: Any) -> None:
        assert result.shape == (*expected["counts"].shape[:2], *SIZE[::-1])
        total = expected["counts"].sum()
        found = float(result.sum()) * (1 if lost == 0 else SENSOR[0] * SENSOR[1] / (SIZE[0] * SIZE[1]))
        assert abs(found / total - 1) < (1e-5 if lost == 0 else 0.05), f"{found} of {total} events"

    return check


def binning(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
    ours = lambda inputs: ev.to_frames(inputs.events, inputs.T, SENSOR)  # noqa: E731
    found = {"copy_": Contestant(copy), "tmkt native": Contestant(ours, equal_counts(0), ours=True)}
    found["numpy bincount"] = Contestant(counts, equal_counts(0))
    if is_installed("tonic"):
        from tonic.transforms import ToFrame

        to_frame = ToFrame((*SENSOR, 2), n_time_bins=shape[0])
        found["tonic"] = Contestant(lambda inputs: to_frame(inputs.events), equal_counts(1), version("tonic"))
    return found


def whole_way(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
    ours = lambda inputs: ev.to_frames(ev.read_bin(inputs.path), inputs.T, SENSOR, SIZE)  # noqa: E731
    found = {"copy_": Contestant(copy), "tmkt native": Contestant(ours, equal_sum(0), ours=True)}
    if is_installed("tonic"):
        from tonic.io import read_mnist_file
        from tonic.transforms import ToFrame

        to_frame = ToFrame((*SENSOR, 2), n_time_bins=shape[0])

        def tonic(inputs: Inputs) -> torch.Tensor:
            frames = to_frame(read_mnist_file(inputs.path, dtype=ev.EVENT_DTYPE))
            return torch.nn.functional.interpolate(torch.from_numpy(frames).float(), SIZE[::-1], mode="bilinear")

        found["tonic"] = Contestant(tonic, equal_sum(1), version("tonic"))
    return found


def expected(inputs: Inputs) -> Any:
    last = inputs.events[-1]
    cell = (inputs.T - 1, int(last["p"]), int(last["y"]), int(last["x"]))
    return {"counts": counts(inputs), "last": cell}


def traffic(record: int, cells: int, cell_bytes: int) -> Callable[[Inputs], Traffic]:
    """Records read and frames written once; 8 operations per event, 16 if it is spread over areas."""

    def count(inputs: Inputs) -> Traffic:
        n = len(inputs.events)
        return Traffic(n * record + inputs.T * 2 * cells * cell_bytes, (8 if cell_bytes == 2 else 16) * n)

    return count


def case(name: str, contestants: Callable[..., dict[str, Contestant]], count: Callable[[Inputs], Traffic]) -> Case:
    return Case(
        "events",
        name,
        (10, 115_000),
        inputs,
        contestants,
        expected,
        count,
        yardstick="tmkt native",
        devices=("cpu",),
        targets=lambda device, dtype: (Target("tonic", 1 / 12),),
        small=(4, 30_000),
    )


CASES = [
    case("binning, 240x180", binning, traffic(ev.EVENT_DTYPE.itemsize, SENSOR[0] * SENSOR[1], 2)),
    case("file to 48x48 frames", whole_way, traffic(5, SIZE[0] * SIZE[1], 4)),
]
