"""Seeds and generators for all random numbers of a run, which make it reproducible."""

import numpy as np
import torch


def step_seed(seed: int, step: int, share: int = 0) -> int:
    """Return a seed for one optimiser step and share of its batch; SeedSequence keeps neighbouring seeds unrelated."""
    return int(np.random.SeedSequence([seed, step, share]).generate_state(1, np.uint64)[0] >> 1)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return a CPU generator for the random numbers of one optimiser step."""
    return torch.Generator().manual_seed(step_seed(seed, step))


def recording_seed(seed: int, image: int, copy: int = 0) -> int:
    """Return the seed of a simulated recording, from the index of the image that it shows and its number among them."""
    return int(np.random.SeedSequence([seed, image, copy]).generate_state(1)[0])
