"""Seeds and generators for everything that a run draws: the same run draws the same."""

import numpy as np
import torch


def step_seed(seed: int, step: int, share: int = 0) -> int:
    """A seed for one optimiser step and a share of its batch; SeedSequence keeps neighbouring seeds unrelated."""
    return int(np.random.SeedSequence([seed, step, share]).generate_state(1, np.uint64)[0] >> 1)


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator for what one optimiser step draws."""
    return torch.Generator().manual_seed(step_seed(seed, step))


def recording_seed(seed: int, image: int) -> int:
    """The seed of a simulated recording's noise, by the index of the image that it shows."""
    return int(np.random.SeedSequence([seed, image]).generate_state(1)[0])
