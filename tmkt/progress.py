"""Progress on the terminal, with rich; one console for the whole program."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# torchrun and accelerate launch say which process this is: the first one alone speaks.
first_process = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, quiet=not first_process)


def bar(*more: Any) -> Progress:
    """A progress bar with counts, elapsed and remaining time; gone when done, and only on a terminal."""
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn(), *more]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def track(items: Sequence[Any] | Any, what: str) -> Iterator[Any]:
    """Iterate with a bar labelled `what`."""
    with bar() as progress:
        yield from progress.track(items, description=what, total=len(items))
