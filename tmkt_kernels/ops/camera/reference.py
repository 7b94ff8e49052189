"""Definition of the simulated event camera, in plain PyTorch; see docs/simulator.md.

All arithmetic is float32 by operations that IEEE 754 fixes, or on integers, so that every backend has the same bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .random_numbers import normal, philox, uniform
from .scene import Scene

# log2(1 + r) / r on [sqrt(1/2) - 1, sqrt(2) - 1], minimax; the logarithm's error is below 4e-7.
LOG2 = (
    1.442699670791626, -0.7213758826255798, 0.48046502470970154, -0.3589618504047394, 0.297262579202652,
    -0.27269792556762695, 0.17063450813293457,
)  # fmt: skip

LEAST_FACTOR = 0.1
"""A pixel keeps at least this share of its camera's threshold, because at 0 it would fire without end."""

Emit = Callable[[Tensor, Tensor, Tensor], None]
"""Called with events: flat index of the pixel in [B, height, width], time in us, and whether it is an on event."""


def log2(x: Tensor) -> Tensor:
    """Return the logarithm to base 2 of positive normal float32."""
    bits = x.contiguous().view(torch.int32)
    exponent = (bits - 0x3F3504F3) >> 23  # subtracting sqrt(1/2) puts the rest into [sqrt(1/2), sqrt(2))
    r = (bits - (exponent << 23)).view(torch.float32) - 1.0
    p = torch.full_like(r, LOG2[-1])
    for coefficient in reversed(LOG2[:-1]):
        p = p * r + coefficient
    return exponent.float() + r * p


def simulate(scene: Scene, emit: Emit) -> None:
    """Simulate all recordings of a scene and pass their events to `emit`, those of one pixel in order of time."""
    pixels = _Pixels(scene)
    for step in range(1, scene.times.shape[1]):
        pixels.expose(step, emit)
    pixels.add_noise(emit)


class _Pixels:
    """State of all pixels [B, height, width]."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        (self.on, self.off, mismatch, self.refractory, self.leak, self.wait, self.hot_wait, self.dead_below,
         self.hot_from, self.on_share, self.dimming, self.dark) = scene.sensor.T[:, :, None, None]  # fmt: skip
        B, n = len(scene.display), scene.height * scene.width
        self.counter = torch.arange(n, device=scene.display.device).view(1, scene.height, scene.width)
        self.flat = (torch.arange(B * n, device=scene.display.device)).view(B, scene.height, scene.width)
        self.key = scene.seeds[:, None, None]
        self.on = self.on * (1.0 + mismatch * normal(self.draw(0))).clamp(min=LEAST_FACTOR)
        self.off = self.off * (1.0 + mismatch * normal(self.draw(1))).clamp(min=LEAST_FACTOR)
        kind, phase, self.first_wait, _ = (uniform(word) for word in self.draw(2))
        self.dead, self.hot = kind < self.dead_below, kind >= self.hot_from

        self.level = log2(self.seen(0))  # of the photoreceptor
        reference = self.level - torch.where(self.leak > 0, phase, 0.0) * self.on
        self.high, self.low = self.crossings(reference)
        self.blind = torch.full_like(self.level, -1.0)  # rest of the refractory period, us; negative: not blind

    def draw(self, number: Tensor | int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return philox(self.key, self.counter, number)

    def crossings(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return the levels at which the pixels fire on and off events; dead pixels never do."""
        infinite = torch.inf
        return (
            torch.where(self.dead, infinite, reference + self.on),
            torch.where(self.dead, -infinite, reference - self.off),
        )

    def seen(self, step: Tensor | int) -> Tensor:
        """Return intensity + dark at each pixel, at one step, or at one of each pixel [B, height, width]."""
        display, width = self.scene.display.flatten(1), self.scene.display.shape[2]
        samples = torch.arange(len(display), device=display.device)[:, None, None]
        right, down, _ = self.scene.shares[samples, step].unbind(-1)
        at = self.scene.times[samples, step, 0].long() + self.counter // self.scene.width * width
        at = at + self.counter % self.scene.width
        upper, lower = display[samples, at], display[samples, at + width]
        left = upper + down * (lower - upper)
        upper, lower = display[samples, at + 1], display[samples, at + width + 1]
        return left + right * ((upper + down * (lower - upper)) - left)

    def expose(self, step: int, emit: Emit) -> None:
        """Show the view of a step for its duration. Within it, the photoreceptors' levels move linearly."""
        _, begin, whole_us = (self.scene.times[:, step, i, None, None] for i in range(3))
        follow = self.scene.shares[:, step, 2, None, None]
        alive = (step < self.scene.n_steps)[:, None, None]
        us = torch.where(alive, whole_us, 1).float()
        before = self.level
        after = before + follow * (log2(self.seen(step)) - before)
        sunk = self.leak * us  # a reference that sinks is a level that rises
        end = after + sunk
        slope = (end - before) / us
        going = alive & (self.blind < us)
        while going.any():
            woken = going & (self.blind >= 0)
            high, low = self.crossings(before + slope * self.blind)
            self.high, self.low = torch.where(woken, high, self.high), torch.where(woken, low, self.low)
            up, down = end >= self.high, end <= self.low
            fires = going & (up | down)
            crossed = torch.where(up, self.high, self.low)
            time = (crossed - before) / slope
            time = torch.where(time > 0, torch.minimum(time, us), 0.0)
            at = begin + torch.minimum(time.int(), whole_us - 1)
            emit(self.flat[fires], at[fires], up[fires])
            high, low = self.crossings(crossed)
            self.high, self.low = torch.where(fires, high, self.high), torch.where(fires, low, self.low)
            self.blind = torch.where(fires, time + self.refractory, torch.where(going, -1.0, self.blind))
            going = fires & (self.blind < us)
        self.blind = torch.where(alive & (self.blind >= 0), self.blind - us, self.blind)
        self.high, self.low = (torch.where(alive, crossing - sunk, crossing) for crossing in (self.high, self.low))
        self.level = torch.where(alive, after, before)

    def add_noise(self, emit: Emit) -> None:
        """Add each pixel's background events, a Poisson process that bright light thins out."""
        wait = torch.where(self.hot, self.hot_wait, self.wait)
        times = self.scene.times
        samples = torch.arange(len(times), device=times.device)[:, None, None]
        last = (self.scene.n_steps.long() - 1)[:, None, None]
        duration = times[samples, last, 1] + times[samples, last, 2]
        at = torch.zeros_like(self.flat)
        begins = torch.where(
            torch.arange(times.shape[1], device=times.device) < self.scene.n_steps[:, None], times[..., 1], 2**31 - 1
        )
        share, number = self.first_wait, 2
        while True:
            at = at + (-log2(share) * wait + 0.5).clamp(max=2.0**30).int()
            going = ~self.dead & (at < duration)
            if not going.any():
                return
            number += 1
            on, kept, next_share, _ = (uniform(word) for word in self.draw(number))
            step = torch.searchsorted(begins.contiguous(), at.flatten(1).int(), right=True).view_as(at) - 1
            kept = kept < (1.0 + self.dimming * self.dark) - self.dimming * self.seen(step)
            fires = going & kept
            emit(self.flat[fires], at[fires], (on < self.on_share)[fires])
            share, at = next_share, torch.where(going, at, 2**30)
