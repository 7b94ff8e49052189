"""Frames of the simulated camera in Triton; mirrors reference.py and frames.py, rounding included.

A program runs all steps of neighbouring pixels of one recording, whose state stays in registers. Each event is added
to its cell of the output as it fires.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .area import SHARE_BITS
from .frames import MOST_COUNT, TOO_MANY, Bins
from .random_numbers import NORMAL_MEAN, NORMAL_SCALE
from .reference import LEAST_FACTOR, LOG2
from .scene import Scene

# One pixel per thread and one warp per program, so that pixels that fire make only 31 others wait. Fusion would turn
# a*b + c into FMAs, whose single rounding moves events against the reference.
BLOCK = 32
LAUNCH = {"BLOCK": BLOCK, "num_warps": 1, "enable_fp_fusion": False}
NEVER = tl.constexpr(2**30)  # us; recordings are at most as long
LEAST = tl.constexpr(LEAST_FACTOR)
MEAN, SCALE = tl.constexpr(NORMAL_MEAN), tl.constexpr(NORMAL_SCALE)
C0, C1, C2, C3, C4, C5, C6 = (tl.constexpr(coefficient) for coefficient in LOG2)


class Inputs(NamedTuple):
    """The tensors of `Scene` and of `Bins`."""

    display: Any
    times: Any
    shares: Any
    n_steps: Any
    sensor: Any
    seeds: Any
    ends: Any
    columns: Any
    rows: Any


class Sizes(NamedTuple):
    """B recordings, S steps of the longest, T bins; sizes of displays, sensors and frames; taps of tables."""

    B: Any
    S: Any
    T: Any
    display_width: Any
    display_height: Any
    width: Any
    height: Any
    out_width: Any
    out_height: Any
    column_taps: Any
    row_taps: Any


class Pixels(NamedTuple):
    """Pixels of a program: their recording, and each one's number in the sensor [BLOCK] and whether it exists."""

    b: Any
    number: Any
    exist: Any


class Sensor(NamedTuple):
    """`Scene.sensor` of one recording."""

    on: Any
    off: Any
    mismatch: Any
    refractory_us: Any
    leak: Any
    wait_us: Any
    hot_wait_us: Any
    dead_below: Any
    hot_from: Any
    on_share: Any
    dimming: Any
    dark: Any


class Traits(NamedTuple):
    """Constants of each pixel [BLOCK]: thresholds, phase of its leak, its background's mean and first wait."""

    on: Any
    off: Any
    dead: Any
    phase: Any
    wait_us: Any
    first_wait: Any


@triton.jit
def any_of(mask):
    return tl.max(mask.to(tl.int32), axis=0) > 0


@triton.jit
def log2(x):
    """Logarithm to base 2 of positive normal numbers."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # subtracting sqrt(1/2) puts the rest into [sqrt(1/2), sqrt(2))
    r = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = ((((r * C6 + C5) * r + C4) * r + C3) * r + C2) * r + C1
    return exponent.to(tl.float32) + r * (p * r + C0)


@triton.jit
def draw(inputs, pixels, number):
    """Four random words of each pixel."""
    return tl.philox(tl.load(inputs.seeds + pixels.b), pixels.number, number, 0, 0)


@triton.jit
def uniform(word):
    """Uniform in the open interval (0, 1)."""
    return ((word >> 9).to(tl.float32) + 0.5) * 2.0**-23


@triton.jit
def threshold_factor(words, mismatch):
    total = tl.zeros_like(words[0])
    for k in tl.static_range(4):
        total += (words[k] >> 16) + (words[k] & 0xFFFF)
    deviation = (total.to(tl.int32) - MEAN).to(tl.float32) * SCALE
    return tl.maximum(1.0 + mismatch * deviation, LEAST)


@triton.jit
def wait_of(share, wait_us):
    """Time to the next background event, us, rounded."""
    wait = -log2(share) * wait_us + 0.5
    return tl.where(wait < NEVER, wait, NEVER).to(tl.int32)


@triton.jit
def load_sensor(inputs, b):
    values = ()
    for k in tl.static_range(12):
        values = values + (tl.load(inputs.sensor + b * 12 + k),)
    return Sensor(*values)  # type: ignore[call-arg]  # mypy takes `values` for ()


@triton.jit
def traits_of(inputs, pixels, sensor):
    on = sensor.on * threshold_factor(draw(inputs, pixels, 0), sensor.mismatch)
    off = sensor.off * threshold_factor(draw(inputs, pixels, 1), sensor.mismatch)
    kind, phase, first_wait, _ = draw(inputs, pixels, 2)
    kind = uniform(kind)
    dead = (kind < sensor.dead_below) | ~pixels.exist
    phase = tl.where(sensor.leak > 0, uniform(phase), 0.0)
    wait_us = tl.where(kind >= sensor.hot_from, sensor.hot_wait_us, sensor.wait_us)
    return Traits(on, off, dead, phase, wait_us, wait_of(uniform(first_wait), wait_us))


@triton.jit
def seen(inputs, sizes, pixels, step):
    """Intensity + dark at each pixel, at one step, or at one of each pixel [BLOCK]."""
    o_step = (pixels.b * sizes.S + step) * 3
    right, down = tl.load(inputs.shares + o_step), tl.load(inputs.shares + o_step + 1)
    view = inputs.display + pixels.b * sizes.display_height * sizes.display_width + tl.load(inputs.times + o_step)
    p = view + pixels.number // sizes.width * sizes.display_width + pixels.number % sizes.width
    upper = tl.load(p, mask=pixels.exist, other=1)
    lower = tl.load(p + sizes.display_width, mask=pixels.exist, other=1)
    left = upper + down * (lower - upper)
    upper = tl.load(p + 1, mask=pixels.exist, other=1)
    lower = tl.load(p + sizes.display_width + 1, mask=pixels.exist, other=1)
    return left + right * ((upper + down * (lower - upper)) - left)


@triton.jit
def part_at(time, bounds_ptr, stride, parts):
    """The part [BLOCK] that holds each time, from parts - 1 ascending bounds, at each of which the next one begins."""
    part = tl.zeros_like(time)
    while parts > 1:  # a binary search, in which all pixels take the same number of turns
        half = parts // 2
        part = tl.where(time >= tl.load(bounds_ptr + (part + (half - 1)) * stride), part + half, part)
        parts -= half
    return part


@triton.jit
def add_events(out_ptr, inputs, sizes, pixels, fires, time, on):
    """Add the events of pixels that fire."""
    t = part_at(time, inputs.ends + pixels.b * sizes.T, 1, sizes.T)
    plane = (t * sizes.B + pixels.b) * 2 + on  # in int64, as b is
    cell = out_ptr + plane * sizes.out_height * sizes.out_width
    if inputs.columns is None:
        tl.atomic_add(cell + pixels.number, tl.full(fires.shape, 1, tl.int32), mask=fires, sem="relaxed")
    else:
        column = inputs.columns + pixels.number % sizes.width * (1 + sizes.column_taps)
        row = inputs.rows + pixels.number // sizes.width * (1 + sizes.row_taps)
        cell += tl.load(row, mask=fires, other=0) * sizes.out_width + tl.load(column, mask=fires, other=0)
        for j in range(sizes.row_taps):
            for i in range(sizes.column_taps):
                share = tl.load(row + 1 + j, mask=fires, other=0) * tl.load(column + 1 + i, mask=fires, other=0)
                tl.atomic_add(cell + i, share.to(tl.int64), mask=share > 0, sem="relaxed")
            cell += sizes.out_width


@triton.jit
def add_steps(out_ptr, inputs, sizes, pixels, sensor, traits):
    """Run all steps. Within one, the photoreceptors' levels move linearly from `before` to `end`."""
    level = log2(seen(inputs, sizes, pixels, 0))
    reference = level - traits.phase * traits.on
    high = tl.where(traits.dead, float("inf"), reference + traits.on)  # levels at which on and off events fire
    low = tl.where(traits.dead, float("-inf"), reference - traits.off)
    blind = tl.full(level.shape, -1.0, tl.float32)  # rest of the refractory period, us; negative: not blind
    for step in range(1, tl.load(inputs.n_steps + pixels.b)):
        o_step = (pixels.b * sizes.S + step) * 3
        begin, whole_us = tl.load(inputs.times + o_step + 1), tl.load(inputs.times + o_step + 2)
        follow = tl.load(inputs.shares + o_step + 2)
        us = whole_us.to(tl.float32)
        before = level
        level = before + follow * (log2(seen(inputs, sizes, pixels, step)) - before)
        sunk = sensor.leak * us  # a reference that sinks is a level that rises
        end = level + sunk
        # The reference has all pixels here that see; those left out neither wake nor fire, so that nothing changes.
        going = (blind < us) & ((blind >= 0) | (end >= high) | (end <= low))
        while any_of(going):
            slope = tl.math.div_rn(end - before, us)
            woken = going & (blind >= 0)
            high = tl.where(woken, (before + slope * blind) + traits.on, high)
            low = tl.where(woken, (before + slope * blind) - traits.off, low)
            up = end >= high
            fires = going & (up | (end <= low))
            crossed = tl.where(up, high, low)
            time = tl.math.div_rn(crossed - before, slope)
            time = tl.where(time > 0, tl.where(time < us, time, us), 0.0)  # 0 for NaN
            at = begin + tl.minimum(time.to(tl.int32), whole_us - 1)
            add_events(out_ptr, inputs, sizes, pixels, fires, at, up)
            high = tl.where(fires, crossed + traits.on, high)
            low = tl.where(fires, crossed - traits.off, low)
            blind = tl.where(fires, time + sensor.refractory_us, tl.where(going, -1.0, blind))
            going = fires & (blind < us)
        blind = tl.where(blind >= 0, blind - us, blind)
        high -= sunk
        low -= sunk


@triton.jit
def add_noise(out_ptr, inputs, sizes, pixels, sensor, traits):
    """Add each pixel's background events, a Poisson process that bright light thins out."""
    steps = tl.load(inputs.n_steps + pixels.b)
    times_ptr = inputs.times + pixels.b * sizes.S * 3
    last_ptr = times_ptr + (steps - 1) * 3
    duration = tl.load(last_ptr + 1) + tl.load(last_ptr + 2)
    time = tl.where(traits.dead, NEVER, traits.first_wait)
    going = time < duration
    number = 3
    while any_of(going):
        on, kept, next_wait, _ = draw(inputs, pixels, number)
        step = part_at(time, times_ptr + 3 + 1, 3, steps)  # from the begins of step 1 on
        light = seen(inputs, sizes, pixels, step)
        kept = uniform(kept) < (1.0 + sensor.dimming * sensor.dark) - sensor.dimming * light
        add_events(out_ptr, inputs, sizes, pixels, going & kept, time, uniform(on) < sensor.on_share)
        time = tl.where(going, time + wait_of(uniform(next_wait), traits.wait_us), time)
        going = going & (time < duration)
        number += 1


@triton.jit(do_not_specialize=list(Sizes._fields))  # so that a new size never recompiles
def camera_frames_kernel(
    out_ptr,
    inputs,
    B,
    S,
    T,
    display_width,
    display_height,
    width,
    height,
    out_width,
    out_height,
    column_taps,
    row_taps,
    BLOCK: tl.constexpr,
):
    sizes = Sizes(B, S, T, display_width, display_height, width, height, out_width, out_height, column_taps, row_taps)
    n_blocks = tl.cdiv(width * height, BLOCK)
    pid = tl.program_id(0)
    number = pid % n_blocks * BLOCK + tl.arange(0, BLOCK)
    pixels = Pixels((pid // n_blocks).to(tl.int64), number, number < width * height)
    sensor = load_sensor(inputs, pixels.b)
    traits = traits_of(inputs, pixels, sensor)
    add_steps(out_ptr, inputs, sizes, pixels, sensor, traits)
    add_noise(out_ptr, inputs, sizes, pixels, sensor, traits)


def taps(table: Tensor | None) -> int:
    return 0 if table is None else table.shape[1] - 1


def camera_frames(scene: Scene, bins: Bins) -> Tensor:
    """Return frames [T, B, 2, height, width]: int16 counts, or with tables float32."""
    B, T = bins.ends.shape
    dtype = torch.int32 if bins.columns is None else torch.int64
    counts = torch.zeros(T, B, 2, bins.height, bins.width, dtype=dtype, device=scene.display.device)
    if counts.numel() > 0:
        _, display_height, display_width = scene.display.shape
        frame = (bins.width, bins.height, taps(bins.columns), taps(bins.rows))
        sizes = Sizes(B, scene.times.shape[1], T, display_width, display_height, scene.width, scene.height, *frame)
        grid = (B * triton.cdiv(scene.width * scene.height, BLOCK),)
        with torch.cuda.device_of(counts):
            camera_frames_kernel[grid](counts, Inputs(*scene[:6], *bins[:3]), *sizes, **LAUNCH)
    if bins.columns is not None:
        return counts.float() * 2.0 ** (-2 * SHARE_BITS)
    torch._assert_async((counts <= MOST_COUNT).all(), TOO_MANY)
    return counts.to(torch.int16)


def forward(*args: Any) -> Tensor:
    return camera_frames(Scene(*args[:8]), Bins(*args[8:]))
