"""From still images to what an event camera in front of them records."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ... import backends
from .. import arguments, library
from . import op
from .area import area_table
from .display import grey, intensities
from .frames import Bins, reference_frames
from .limits import MOST_WORK, at_most
from .motion import Motion
from .random_numbers import checked_seed, sample_seeds
from .scene import Scene, moving_images
from .sensor import Camera

CALL = library.register_forward("camera_frames", op.FRAMES_SCHEMA, op.fake_frames, "camera")
"""The operator that makes frames, by backend."""

_WORK = 2**32  # pixels times steps of one call on the CPU


def simulate_frames(
    images: Tensor,
    image_index: Tensor | None,
    motion: Motion,
    camera: Camera,
    T: int,
    size: tuple[int, int] | None = None,
    *,
    sensor_size: tuple[int, int] | None = None,
    n_frames: Tensor | None = None,
    seed: int | Tensor,
    backend: str = "auto",
) -> Tensor:
    """Simulate B recordings of still images and count their events in T bins of equal time, by docs/simulator.md.

    Each image moves in front of a camera of its own. No event is stored. The frames equal `events.to_frames` of the
    recording's events, with span=(0, duration), bit for bit. All backends and devices, and any number of threads, give
    the same bits. There are no derivatives, and torch.compile splits its graph here.

    Args:
        images: uint8 [N, 1, h, w], or [N, 3, h, w], of which the luminance is shown.
        image_index: int64 [B], the image of each recording; None: all N images in turn, B = N.
        motion, camera: B of each.
        T: number of frames; each covers a T-th of its recording's duration.
        size: (width, height) of the frames, for which an event spreads over the cells that its pixel overlaps, in
            parts of 2^-15 along each axis; None for the sensor's.
        sensor_size: (width, height) of the cameras; None for that of the images.
        n_frames: int64 [B] on the CPU, 0 to T: only so many first frames of each recording are simulated, and the
            others are zero, as the static side of a mixup needs its switch step; None: all.
        seed: of thresholds and noise, 0 to 2^64 - 1, from which each recording of the batch gets its own; or int64
            [B], 64 random bits for each, so that parts of a batch get the same numbers as the whole.
        backend: "auto", "native", "triton" or "reference".

    Returns:
        [T, B, 2, height, width] on the images' device; channel 0 counts off events, 1 on events. int16 without
        `size`, float32 with it.

    Raises:
        TypeError, ValueError, IndexError: a bad argument, or too long a motion; the message names it.
        RuntimeError: a backend chosen by name cannot serve these tensors, or a count exceeds int16 (on a GPU, by a
            device-side assertion).
    """
    if not isinstance(motion, Motion) or not isinstance(camera, Camera):
        got = f"{type(motion).__name__} and {type(camera).__name__}"
        raise TypeError(f"motion, camera: expected a Motion and a Camera, got {got}")
    if len(camera) != len(motion):
        raise ValueError(f"camera: expected one for each of {len(motion)} motions, got {len(camera)}")
    if isinstance(T, bool) or not isinstance(T, int) or not 1 <= T < 2**31:
        raise ValueError(f"T: expected a number of frames from 1 to 2^31 - 1, got {T!r}")
    shown = intensities(_chosen_images(images, image_index, len(motion)))
    sensor_size = (shown.shape[2], shown.shape[1]) if sensor_size is None else sensor_size
    sensor_size = arguments.checked_size("sensor_size", sensor_size)
    size = None if size is None else arguments.checked_size("size", size)
    chosen = backends.choose("simulate_frames", images.device, torch.float32, backend)
    made = moving_images(shown, motion, camera, sensor_size, _sample_seeds(seed, len(motion)))
    bins = _bins(motion, T, sensor_size, size, images.device)
    call = reference_frames if chosen == "reference" else functools.partial(_in_calls, CALL[chosen])
    return call(made, bins) if n_frames is None else _first_frames(call, made, bins, n_frames)


def _bins(
    motion: Motion, T: int, sensor_size: tuple[int, int], size: tuple[int, int] | None, device: torch.device
) -> Bins:
    """Return T bins of equal time over each motion's duration, with tables if the frames are resized."""
    ends = (motion.duration_us()[:, None] * torch.arange(1, T + 1) + (T - 1)) // T
    columns, rows = None, None
    if size is not None:
        columns, rows = (torch.tensor(area_table(*axis)).to(device) for axis in zip(sensor_size, size, strict=True))
    return Bins(ends.int().to(device), columns, rows, *(size or sensor_size))


def _first_frames(call: Callable[[Scene, Bins], Tensor], made: Scene, bins: Bins, n_frames: Tensor) -> Tensor:
    """Simulate each recording until its first `n_frames` are complete."""
    B, T = bins.ends.shape
    if not isinstance(n_frames, Tensor) or n_frames.dtype != torch.int64 or n_frames.shape != (B,):
        raise ValueError(f"n_frames: expected int64 [{B}], got {n_frames!r}")
    if n_frames.is_cuda or (B and not 0 <= n_frames.min() <= n_frames.max() <= T):
        raise ValueError(f"n_frames: expected values from 0 to {T} on the CPU, got {n_frames!r}")
    n_frames = n_frames.to(bins.ends.device)
    until = torch.cat([torch.zeros_like(bins.ends[:, :1]), bins.ends], dim=1).gather(1, n_frames[:, None])
    n_steps = torch.minimum((made.times[..., 1] < until).sum(1).clamp(min=1).int(), made.n_steps)
    frames = call(made._replace(n_steps=n_steps), bins)
    late = torch.arange(T, device=frames.device)[:, None] >= n_frames  # the last step may reach into a later frame
    return frames.masked_fill_(late[..., None, None, None], 0)


def _in_calls(call: Callable[..., Tensor], made: Scene, bins: Bins) -> Tensor:
    """Call the operator on as many recordings at once as keep Ctrl-C waiting for some seconds at most."""
    work = made.times.shape[1] * made.width * made.height
    at_most(
        work, MOST_WORK, "a recording has # pixels times steps", "list its events, as events.simulate_saccades does"
    )
    at_once = max(1, _WORK // max(1, work))
    if len(made.display) <= at_once or made.display.is_cuda:
        return call(*made, *bins)
    parts = []
    for begin in range(0, len(made.display), at_once):
        part = slice(begin, begin + at_once)
        tensors = (tensor[part] for tensor in made[:6])
        parts.append(call(*tensors, made.width, made.height, bins.ends[part], *bins[1:]))
    return torch.cat(parts, dim=1)


def _chosen_images(images: Tensor, image_index: Tensor | None, batch: int) -> Tensor:
    """Return uint8 [B, h, w], the image of each recording."""
    expected = "uint8 [N, 1, h, w] or [N, 3, h, w]"
    if arguments.dense("images", images, expected).dtype != torch.uint8:
        raise TypeError(f"images: expected {expected}, got {images.dtype}; scale to 0 to 255 and convert it first")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(f"images: expected {expected}, got shape {list(images.shape)}")
    if image_index is None:
        if len(images) != batch:
            raise ValueError(f"image_index: needed, since there are {len(images)} images for {batch} motions")
        return grey(images)
    if arguments.dense("image_index", image_index, "int64 [B]").dtype != torch.int64:
        raise TypeError(f"image_index: expected int64, got {image_index.dtype}; convert it first")
    if image_index.shape != (batch,):
        raise ValueError(f"image_index: expected shape [{batch}], one image per motion, got {list(image_index.shape)}")
    if image_index.device.type == "cpu" and batch and not 0 <= image_index.min() <= image_index.max() < len(images):
        low, high = int(image_index.min()), int(image_index.max())
        raise IndexError(f"image_index: expected values in 0..{len(images) - 1}, got {low}..{high}")
    return grey(images)[image_index.to(images.device)]


def _sample_seeds(seed: int | Tensor, batch: int) -> Tensor:
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.shape != (batch,):
            raise ValueError(f"seed: expected int64 [{batch}], got {seed.dtype} {list(seed.shape)}")
        return seed
    return sample_seeds(checked_seed(seed), batch)
