"""What stands in graphs of torch.compile as one call, by name."""

from collections.abc import Callable
from typing import Any

CALLS: dict[str, Callable[..., Any]] = {}
