"""Images and recordings as tensors, in memory or in files of the cache."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import DataConfig
from ..progress import track
from .cache import Entry, FrameCache
from .pairs import EventFrames
from .sources.events import FRAMES_VERSION, EventSource, Recording
from .sources.images import IMAGE_VERSION, StaticSource, fit_image


def load_events(source: EventSource, recordings: Sequence[Recording], config: DataConfig, what: str) -> EventFrames:
    """Load the frames of recordings into memory or from a file of the cache; `what` labels the progress bar.

    Raises:
        UserError: as `EventSource.frames`, or the cache cannot be written.
    """
    width, height = config.size
    shape = (config.time_steps, 2, height, width)

    def read() -> Iterator[np.ndarray]:
        for recording in track(recordings, what):
            yield source.frames(recording)

    if not recordings:
        frames = torch.empty(config.time_steps, 0, 2, height, width)
    elif config.cache is None:
        frames = torch.from_numpy(np.stack(list(read()), axis=1))
    else:
        settings, entries = source.key(recordings)
        settings |= {
            "frames": FRAMES_VERSION,
            "time_steps": config.time_steps,
            "size": config.size,
            "sensor_size": config.events.sensor_size,
        }
        frames = torch.from_numpy(FrameCache(config.cache).frames(what, settings, entries, read(), shape))
    labels = torch.tensor([recording.label for recording in recordings], dtype=torch.int64)
    return EventFrames(frames, labels, tuple(recording.name for recording in recordings))


def load_images(
    source: StaticSource,
    indices: Sequence[int] | np.ndarray,
    size: tuple[int, int],
    fit: str,
    what: str,
    cache: str | None = None,
) -> Tensor:
    """Load images `indices` of the set as uint8 [N, 1, H, W] of `size` (width, height); `what` labels the progress bar.

    With a `cache` (a folder), images in files of their own are decoded only once; other sets are loaded directly.
    """

    def read() -> Iterator[np.ndarray]:
        for index in track(indices, what):
            yield fit_image(source.read(int(index)), size, fit).numpy()

    if cache and source.files:
        entries = [Entry.of(source.files[int(index)]) for index in indices]
        settings = {"images": IMAGE_VERSION, "size": size, "fit": fit}
        # The cache stacks along axis 1, which is time for recordings.
        shape = (1, 1, size[1], size[0])
        frames = FrameCache(cache).frames(what, settings, entries, (image[None] for image in read()), shape)
        return torch.from_numpy(frames[0])
    images = torch.empty(len(indices), 1, size[1], size[0], dtype=torch.uint8)
    for row, image in enumerate(read()):
        images[row] = torch.from_numpy(image)
    return images
