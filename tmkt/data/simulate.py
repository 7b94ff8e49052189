"""`tmkt data simulate`: recordings of the images of a folder, by simulated cameras."""

from pathlib import Path

import numpy as np
import torch

from tmkt_kernels import Camera, Motion
from tmkt_kernels import events as ev

from ..config import StaticConfig
from ..errors import UserError
from ..progress import count, track
from ..seeding import recording_seed
from .sources.images import open_static

SUFFIXES = {"npz": ".npz", "bin": ".bin", "evt3": ".raw"}


def simulate_folder(
    images: str | Path,
    out: str | Path,
    *,
    camera: str = "any",
    motion: str = "any",
    n: int = 1,
    sensor: tuple[int, int] | list[int] | None = None,
    seed: int = 0,
    format: str = "npz",
) -> str:
    """Write `n` recordings of each image `images`/<class>/<image> to `out`/<class>/<image>-<k>.npz, .bin or .raw.

    camera, motion: names for `Camera.draw` and `Motion.preset`. What they draw, and the noise, differ from recording to
    recording, by the seed, the image's place in the folder, and k. sensor: (width, height); None for that of each
    image. format: npz, bin (N-MNIST's) or evt3 (.raw). Returns a line that describes what was written.

    Raises:
        UserError: an image cannot be read, a number is out of range, or a recording has no events.
    """
    if n < 1 or seed < 0:
        raise UserError(f"--n and --seed: expected 1 or more and 0 or more, got {n} and {seed}")
    source = open_static(StaticConfig(source="folder", root=str(images)))
    files, n_events = list(source.files or ()), 0
    jobs = [(index, k) for index in range(len(files)) for k in range(n)]
    for index, k in track(jobs, "recordings"):
        own = recording_seed(seed, index, k)
        generator = torch.Generator().manual_seed(own)
        image = source.read(index)[0].numpy()
        size = (image.shape[1], image.shape[0]) if sensor is None else (sensor[0], sensor[1])
        target = Path(out) / source.classes[source.labels[index]] / f"{files[index].stem}-{k}{SUFFIXES[format]}"
        try:
            shown = Motion.preset(1, motion, generator=generator), Camera.draw(1, camera, generator=generator)
            events = ev.simulate_recording(image, *shown, sensor_size=size, seed=own)
            _write(target, events, size)
        except ValueError as error:
            raise UserError(f"{files[index]}: {error}") from error
        n_events += len(events)
    mean = n_events / len(jobs)
    return (
        f"{count(len(jobs), 'recording')} of {count(len(files), 'image')} in {out}, {mean:,.0f} events each on average"
    )


def _write(path: Path, events: np.ndarray, sensor_size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        ev.write_bin(path, events)
    elif path.suffix == ".raw":
        ev.write_evt3(path, events, sensor_size)
    else:
        ev.write_npz(path, events, sensor_size)
