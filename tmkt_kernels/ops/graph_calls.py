"""Functions that graphs of torch.compile contain as one call, by name."""

from collections.abc import Callable
from typing import Any

CALLS: dict[str, Callable[..., Any]] = {}
