"""Event recordings: a folder <class>/<id>.bin, or simulated from static images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tmkt_kernels import events as ev

from ..config import DataConfig
from ..errors import UserError
from ..progress import track
from .static import StaticSource


@dataclass(frozen=True)
class Recording:
    """One recording: its label, and its place, `class/id` (for a simulated one, id is the image's index)."""

    label: int
    name: str
    path: Path | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]


def find_recordings(root: str | Path, classes: Sequence[str], *, every_class: bool = True) -> list[Recording]:
    """List <class>/<id>.bin under `root`, sorted, with the label that `classes` gives each folder's name.

    Args:
        every_class: every class must have its folder (for training); evaluation may see only some.

    Raises:
        UserError: root is no folder, a folder is no known class, is empty or missing, or holds another file.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"recordings: {str(root)!r} is not a folder; expected one that holds <class>/<id>.bin")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise UserError(f"recordings: {root} holds no class folders; expected <class>/<id>.bin")
    found = []
    for folder in folders:
        if folder.name not in classes:
            raise UserError(
                f"recordings: folder {folder} is none of the classes {', '.join(classes)}; rename or move it"
            )
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        if not files:
            raise UserError(f"recordings: class folder {folder} is empty; expected <id>.bin files")
        for path in files:
            if path.suffix != ".bin" or not path.is_file():
                raise UserError(f"recordings: {path} is not a .bin file; a class folder holds recordings only")
            found.append(Recording(list(classes).index(folder.name), f"{folder.name}/{path.stem}", path))
    missing = [name for name in classes if name not in {folder.name for folder in folders}]
    if missing and every_class:
        raise UserError(f"recordings: {root} has no folder for the class(es) {', '.join(missing)} of the static set")
    return found


def load_recordings(recordings: Sequence[Recording], config: DataConfig, what: str) -> Tensor:
    """Read recordings into frames [T, N, 2, H, W], int16 counts (float32 where they are resized).

    Raises:
        UserError: a file is damaged or has events beyond the sensor; the message names it.
    """
    frames = []
    for recording in track(recordings, what):
        assert recording.path is not None
        try:
            frames.append(_to_frames(ev.read_bin(recording.path), config))
        except (ValueError, OSError) as error:
            reason = str(error) if str(recording.path) in str(error) else f"{recording.path}: {error}"
            raise UserError(f"recording {reason}") from error
    return torch.stack(frames, dim=1)


def simulate_recordings(
    source: StaticSource, recordings: Sequence[Recording], config: DataConfig, seed: int, what: str
) -> Tensor:
    """Simulate an event camera on the images of `recordings` -> frames [T, N, 2, H, W], as `load_recordings`."""
    frames = []
    for recording in track(recordings, what):
        image = source.read(int(recording.id))[0].numpy()
        noise_seed = int(np.random.SeedSequence([seed, int(recording.id)]).generate_state(1)[0])
        events = ev.simulate_saccades(image, sensor_size=config.events.sensor_size, seed=noise_seed)
        frames.append(_to_frames(events, config))
    return torch.stack(frames, dim=1)


def _to_frames(events: np.ndarray, config: DataConfig) -> Tensor:
    sensor_size = config.events.sensor_size
    size = None if config.size == sensor_size else config.size
    return torch.from_numpy(ev.to_frames(events, config.time_steps, sensor_size=sensor_size, size=size))
