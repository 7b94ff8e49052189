"""Progress on the terminal, with rich; one console for the whole program."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# torchrun and accelerate launch say which process this is: the first one alone speaks.
first_process = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, quiet=not first_process)


def say(text: str) -> None:
    """Print a line as it is: names in it may hold what rich, or a terminal, would take for a command."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """`text` with line breaks and other characters that cannot be printed written out, as in "\\n"."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def bar(*more: Any) -> Progress:
    """A progress bar with counts, elapsed and remaining time; gone when done, and only on a terminal."""
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn(), *more]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def track(items: Sequence[Any] | Any, what: str) -> Iterator[Any]:
    """Iterate with a bar labelled `what`."""
    with bar() as progress:
        yield from progress.track(items, description=what, total=len(items))
