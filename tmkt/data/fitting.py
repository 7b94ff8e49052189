"""Cameras that are fitted to a few recordings, of which nothing but the frames and the classes is known.

The path along which a set's images move, and the pixels of its camera, show in the mean of its recordings. The fit
looks for cameras under which the mean recording of other images of the same classes is like it. It is a search by the
cross-entropy method (Rubinstein and Kroese 2004): draw candidates from a normal distribution, simulate some images with
each, and move the distribution to the best of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tmkt_kernels import simulate_frames

from ..errors import UserError
from ..progress import track
from .fitted_cameras import FittedCameras, cameras
from .pairs import ClassIndex, EventFrames

MOST = 200  # recordings that are fitted to
STEPS = 24  # frames of a recording, in which its motion shows
CANDIDATES, BEST, ROUNDS = 96, 12, 20
IMAGES = 10  # that each candidate sees in a round
_TOGETHER = 480  # recordings that are simulated at once


def fit_cameras(
    recordings: EventFrames, scenes: Tensor, scenes_by_class: ClassIndex, sensor_size: tuple[int, int], seed: int
) -> tuple[FittedCameras, float]:
    """Fit cameras to recordings.

    Args:
        recordings: frames [STEPS, N, 2, H, W], at least one recording.
        scenes: uint8 [M, 1, h, w], images as the cameras see them; scenes_by_class: their rows by class.
        sensor_size: width and height of the simulated sensor.

    Returns:
        The cameras, and the distance of their mean recording from that of `recordings`: the squared error, in units of
        the mean recording's square, plus half the squared logarithm of the ratio of their events.

    Raises:
        UserError: the recordings hold no events.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.unique(recordings.labels)
    frames = recordings.frames.float()
    target = _smooth(torch.stack([frames[:, recordings.labels == k].mean(1) for k in labels]).mean(0)[None])
    events = frames.sum((0, 2, 3, 4)).mean()
    if not events:
        raise UserError(
            f"data.camera: fitted: the {len(recordings)} training recordings hold no events; run `tmkt data check`, or "
            "choose any"
        )
    found, distance = FittedCameras.before(sensor_size), torch.tensor([float("inf")])
    least = found.spread / 50
    for _ in track(range(ROUNDS), "fitting the cameras"):
        drawn = found.sample(CANDIDATES, generator)
        shown = scenes_by_class.draw(labels[torch.arange(IMAGES) % len(labels)], generator)
        means, counts = _mean_recordings(drawn, scenes, shown, sensor_size, frames, generator)
        error = (_smooth(means) - target).square().sum((1, 2, 3, 4)) / target.square().sum()
        distance = error + (counts.clamp_min(1e-3) / events).log().square() / 2
        best = drawn[distance.argsort(stable=True)[:BEST]]
        mean = 0.3 * found.mean + 0.7 * best.mean(0)
        spread = 0.3 * found.spread + 0.7 * best.std(0)
        found = FittedCameras(mean, torch.maximum(spread, least))
    return found, float(distance.sort().values[:BEST].mean())


def _mean_recordings(
    drawn: Tensor,
    scenes: Tensor,
    shown: Tensor,
    sensor_size: tuple[int, int],
    like: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the mean recording of images `shown` [I] by each camera, [B, STEPS, 2, H, W], and its events [B]."""
    steps, _, _, height, width = like.shape
    size = None if (width, height) == sensor_size else (width, height)
    means = []
    for camera in torch.split(drawn, max(1, _TOGETHER // len(shown))):
        motions, pixels = cameras(camera.repeat_interleave(len(shown), 0))
        seed = torch.randint(-(2**63), 2**63 - 1, (len(motions),), generator=generator)
        made = simulate_frames(
            scenes, shown.repeat(len(camera)), motions, pixels, steps, size, sensor_size=sensor_size, seed=seed
        )
        means.append(made.float().view(steps, len(camera), len(shown), 2, height, width).mean(2).transpose(0, 1))
    joined = torch.cat(means)
    return joined, joined.sum((1, 2, 3, 4))


def _smooth(recordings: Tensor) -> Tensor:
    """Blur recordings [N, T, 2, H, W] by about a pixel and a frame, so that near misses count as near."""
    near = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    count, steps, _, height, width = recordings.shape
    planes = F.conv2d(recordings.reshape(-1, 1, height, width), (near[:, None] * near)[None, None], padding=2)
    lines = planes.view(count, steps, 2 * height * width).transpose(1, 2).reshape(-1, 1, steps)
    blurred = F.conv1d(lines, near[None, None, 1:4] / near[1:4].sum(), padding=1)
    return blurred.view(count, 2, height, width, steps).permute(0, 4, 1, 2, 3)
