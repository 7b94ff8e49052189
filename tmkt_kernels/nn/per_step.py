"""Layers without memory, applied to each step."""

from torch import Tensor, nn


class PerStep(nn.Sequential):
    """Layers without memory of their own, such as a convolution, applied to each step as to one batch of T * B samples.

    x_seq [T, B, ...] -> [T, B, ...].

    Raises:
        ValueError: x_seq has fewer than two dimensions.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        if x_seq.dim() < 2:
            raise ValueError(f"PerStep: x_seq: expected [T, B, ...], got {list(x_seq.shape)}")
        y = x_seq.flatten(0, 1)
        for layer in self:
            y = layer(y)
        return y.view(x_seq.shape[:2] + y.shape[1:])
