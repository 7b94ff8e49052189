"""Progress, with rich: a bar on a terminal, plain lines elsewhere; one console for the whole program."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

# RANK, set by torchrun and accelerate launch, numbers this process. Only the first one prints.
first_process = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, quiet=not first_process)
SILENCE = 5.0  # seconds between plain lines without a terminal for a bar


def say(text: str) -> None:
    """Print a line unchanged, because names in it may hold text that rich or a terminal would take for a command."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """Return `text` with line breaks and other unprintable characters written out, as in "\\n"."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def count(number: int, noun: str) -> str:
    """Return the number and its noun, as in "1 recording" and "4,600 recordings"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def clock(seconds: float | None) -> str:
    """Return seconds as 1:05 or 1:02:05; "?" if they are not known yet."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


class Times(ProgressColumn):
    """Elapsed and remaining time, each with a label."""

    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))  # on a narrow terminal the bar gives way

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{clock(elapsed)} elapsed, {clock(task.time_remaining)} left")


def bar(*more: Any) -> Progress:
    """Make a progress bar with counts, then the columns `more`, then times; gone when done, and only on a terminal."""
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, Times()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def track(items: Sequence[Any] | Any, what: str) -> Iterator[Any]:
    """Iterate with a bar labelled `what`; without a terminal, print the progress every few seconds."""
    if console.is_terminal:
        with bar() as progress:
            yield from progress.track(items, description=what, total=len(items))
        return
    said = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said > SILENCE:
            say(f"{what}: {done} of {len(items)}")
            said = time.monotonic()
        yield item


class TrainingProgress:
    """Progress of a training: a bar on a terminal; elsewhere a line at each log point, and when steps are slow."""

    def __init__(self, name: str, steps: int, done: int) -> None:
        self.name, self.steps, self.begin, self.note = name, steps, done, ""
        self.bar = bar(TextColumn("{task.fields[note]}"))
        self.task = self.bar.add_task(name, total=steps, completed=done, note="")
        self.began = self.said = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, step: int, values: dict[str, float] | None = None) -> None:
        """Show that `step` steps are done; `values` of a log point: name -> number."""
        if values is not None:
            self.note = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.bar.update(self.task, completed=step, note=self.note)
        now = time.monotonic()
        if console.is_terminal or (values is None and now - self.said < SILENCE):
            return
        elapsed = now - self.began
        left = elapsed / max(1, step - self.begin) * (self.steps - step)
        note = f"{self.note}, " if values is not None else ""
        say(f"{self.name}, step {step}/{self.steps}: {note}{clock(elapsed)} elapsed, {clock(left)} left")
        self.said = now
