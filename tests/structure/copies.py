"""Identical runs of lines."""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .sources import Source

LONGEST_RUN = 8  # lines that may occur twice


class Line(NamedTuple):
    path: str
    number: int
    text: str


class Run(NamedTuple):
    """Two places with the same lines."""

    lines: int
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.lines} lines: {self.first} and {self.second}"


def identical_runs(sources: list[Source], spelled_out: Collection[tuple[str, int]] = ()) -> list[Run]:
    """Return the runs above the limit, each at its full length.

    Comments, blank lines, spaces and imports do not count, nor do the parameters of the functions at `spelled_out`,
    (path, line), because a public signature names every keyword, and a kernel every argument.
    """
    files = [list(_lines(source, spelled_out)) for source in sources]
    windows = defaultdict(list)
    for file, lines in enumerate(files):
        for at in range(len(lines) - LONGEST_RUN):
            windows[tuple(line.text for line in lines[at : at + LONGEST_RUN + 1])].append((file, at))
    pairs = {(places[0], other) for places in windows.values() for other in places[1:]}
    return sorted(_run(files, pairs, pair) for pair in pairs if _moved(pair, -1) not in pairs)


Pair = tuple[tuple[int, int], tuple[int, int]]


def _moved(pair: Pair, by: int) -> Pair:
    (file, at), (other, there) = pair
    return (file, at + by), (other, there + by)


def _run(files: list[list[Line]], pairs: set[Pair], pair: Pair) -> Run:
    length = LONGEST_RUN + 1
    while _moved(pair, length - LONGEST_RUN) in pairs:
        length += 1
    first, second = (files[file][at] for file, at in pair)
    return Run(length, f"{first.path}:{first.number}", f"{second.path}:{second.number}")


def _lines(source: Source, spelled_out: Collection[tuple[str, int]]) -> Iterator[Line]:
    comment = "#" if source.is_python else "//"
    left_out = set(_left_out(source, spelled_out)) if source.is_python else set()
    for number, line in enumerate(source.text.splitlines(), 1):
        text = "".join(line.split())
        if text and not text.startswith(comment) and number not in left_out:
            yield Line(source.path, number, text)


def _left_out(source: Source, spelled_out: Collection[tuple[str, int]]) -> Iterator[int]:
    """Return the numbers of the lines of imports, and of the parameters that are spelled out."""
    for node in ast.walk(source.syntax):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        elif isinstance(node, ast.FunctionDef) and (source.path, node.lineno) in spelled_out:
            yield from range(node.lineno, node.body[0].lineno)
