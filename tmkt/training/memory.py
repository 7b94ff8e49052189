"""Detection of settings that need more memory than available, before minutes of loading, or when memory runs out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..config import Config
from ..errors import UserError

_PAIR_BYTES = 200  # generous estimate for drawing one pair
_PHRASES = ("allocate", "out of memory", "Storage size calculation overflowed", "too big", "invalid size")


def check_size(config: Config, processes: int = 1) -> None:
    """Raise UserError if the frames, or the pairs of one step, alone exceed this machine's memory."""
    train, data = config.train, config.data
    width, height = data.size
    border = 2 * (data.crop_padding or 0)
    frames = train.batch * data.time_steps * 2 * (width + border) * (height + border)
    pairs = train.batch * train.accumulate * processes
    teacher = config.transfer.teacher.batch if config.transfer.distils else 0
    size = f"data.size {width}x{height}"
    needs = {
        f"a pass of train.batch {train.batch} sequences of data.time_steps {data.time_steps} frames, {size} and "
        f"data.crop_padding {data.crop_padding},": 4 * frames,
        f"drawing the pairs of train.batch {train.batch} x accumulate {train.accumulate}": _PAIR_BYTES * pairs,
        f"transfer.teacher.batch {teacher} images of {size}": 4 * 3 * width * height * teacher,
    }
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if torch.cuda.is_available():
        there = max(there, torch.cuda.get_device_properties(0).total_memory)
    for what, bytes_needed in needs.items():
        if bytes_needed > there:
            found = f"{bytes_needed / 1e9:,.0f} GB, this machine has {there / 1e9:,.0f}"
            raise UserError(f"memory: {what} takes {found}; lower them")


@contextmanager
def enough_memory(config: Config) -> Iterator[None]:
    """Within the block, running out of memory is a UserError that names the settings responsible."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(p in reason for p in _PHRASES):
            raise
        train, data, model = config.train, config.data, config.model
        raise UserError(
            f"memory: there is not enough ({reason or 'MemoryError'}); lower train.batch ({train.batch}), "
            f"data.time_steps ({data.time_steps}), data.size ({data.size[0]}x{data.size[1]}) or model.options "
            f"({model.options}), or train on fewer recordings"
        ) from error
