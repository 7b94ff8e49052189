"""Random inputs of `bn_lif`, and the gradients of its outputs."""

import torch


def inputs_of(shape, dtype, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(size, generator=generator).to(device)  # noqa: E731
    channels = shape[2]
    return {
        "x": (draw(*shape) * 1.7 + 0.4).to(dtype),
        "weight": draw(channels) * 0.3 + 1,
        "bias": draw(channels) * 0.3,
        "v_init": draw(*shape[1:]),
        "grads": (draw(*shape), draw(*shape[1:]), draw(*shape)),
    }
