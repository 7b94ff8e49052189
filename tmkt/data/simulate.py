"""`tmkt data simulate`: recordings of the images of a folder, by simulated cameras."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tmkt_kernels import Camera, Motion
from tmkt_kernels import events as ev

from ..config import StaticConfig
from ..errors import UserError
from ..progress import count, track
from ..seeding import recording_seed
from .sources.images import StaticSource, open_static

WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray, tuple[int, int]], None]]] = {
    "npz": (".npz", ev.write_npz),
    "bin": (".bin", lambda path, events, _: ev.write_bin(path, events)),
    "evt3": (".raw", ev.write_evt3),
}
"""The ending of a file and its writer, by format."""


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
    image. format: a name of `WRITERS`. Returns a line that describes what was written.

    Raises:
        UserError: an image cannot be read, two images have one name, a number is out of range, or a recording has no
            events.
    """
    if n < 1 or seed < 0:
        raise UserError(f"--n and --seed: expected 1 or more and 0 or more, got {n} and {seed}")
    source = open_static(StaticConfig(source="folder", root=str(images)))
    (ending, write), n_events = WRITERS[format], 0
    files = _files_by_target(source)
    jobs = [(index, target, k) for index, target in enumerate(files) for k in range(n)]
    for index, target, k in track(jobs, "recordings"):
        own = recording_seed(seed, index, k)
        generator = torch.Generator().manual_seed(own)
        image = source.read(index)[0].numpy()
        size = (image.shape[1], image.shape[0]) if sensor is None else (sensor[0], sensor[1])
        path = Path(out) / f"{target}-{k}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shown = Motion.preset(1, motion, generator=generator), Camera.draw(1, camera, generator=generator)
            events = ev.simulate_recording(image, *shown, sensor_size=size, seed=own)
            write(path, events, size)
        except ValueError as error:
            raise UserError(f"{files[target]}: {error}") from error
        n_events += len(events)
    mean = n_events / len(jobs)
    return (
        f"{count(len(jobs), 'recording')} of {count(len(files), 'image')} in {out}, {mean:,.0f} events each on average"
    )


def _files_by_target(source: StaticSource) -> dict[str, Path]:
    """Return the image files in their order, by <class>/<image>; raise UserError where two would be one."""
    files: dict[str, Path] = {}
    for label, path in zip(source.labels, source.files or (), strict=True):
        target = f"{source.classes[label]}/{path.stem}"
        if target in files:
            raise UserError(f"{files[target]} and {path}: expected one image {target}; rename one of them")
        files[target] = path
    return files
