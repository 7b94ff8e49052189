"""A few samples as a training step sees them, for pictures."""

import torch
from torch import Tensor

from .config import Config
from .data import RunData, sample_pairs
from .engine import step_seed
from .transfer import build_streams


def example_batch(
    config: Config, data: RunData, progress: float, samples: int = 6
) -> tuple[Tensor, Tensor, list[str]] | None:
    """(mixed [T, B, 2, H, W], switch_step [B], titles) of the mixed stream at `progress` in [0, 1), uncropped.

    None: the method mixes nothing.
    """
    generator = torch.Generator().manual_seed(step_seed(config.seed, 0))
    pairs = sample_pairs(data.train, samples, 0, generator)
    streams = build_streams(
        config.transfer,
        data.train,
        pairs,
        progress=progress,
        event_scale=1.0,
        crop_padding=0,
        generator=generator,
    )
    if streams.mixed is None or streams.switch_step is None:
        return None
    return streams.mixed.cpu(), streams.switch_step.cpu(), [f"class {data.classes[label]}" for label in pairs.label]
