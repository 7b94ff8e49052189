"""All measures, with their limits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from . import assertions, copies, imports, recurrences, routes, sizes, visits
from .modules import modules_of
from .sources import PACKAGES, TESTS, Function, Tree

PREPARE = "tmkt.data", "prepare"  # from a run's configuration to its tensors


@dataclass(frozen=True)
class Result:
    """`value` is compared with the limit, and is None if it could not be measured; `places` are the places counted."""

    value: int | None
    places: list[str]
    notes: tuple[str, ...] = ()  # exempt places, places without a limit, or the reason why there is no value


@dataclass(frozen=True)
class Measure:
    """Below `least`, the measure has lost its subject, for example because a name that it looks for has changed."""

    name: str
    limit: int
    take: Callable[[Tree], Result]
    least: int = 0


def _counted(places: Iterable[object], notes: Iterable[str] = ()) -> Result:
    listed = [str(place) for place in places]
    return Result(len(listed), listed, tuple(notes))


def _loops(tree: Tree, device: str) -> Result:
    return _counted(" with ".join(map(str, parts)) for parts in recurrences.loops(tree, device))


def _compiled_loops(tree: Tree) -> Result:
    return Result(sum(len(recurrences.loops(tree, device)) for device in recurrences.COMPILED), [])


def _parameters(tree: Tree) -> Result:
    many, exempt = sizes.functions_with_many_parameters(tree)
    notes = (f"exempt, {reason}: {_with(f, f.parameters)}" for f, reason in exempt)
    return _counted((_with(f, f.parameters) for f in many), notes)


def _function_lines(tree: Tree) -> Result:
    long, exempt = sizes.long_functions(tree)
    notes = (f"exempt, a table of formulas: {_with(f, f.lines)}" for f in exempt)
    return _counted((_with(f, f.lines) for f in long), notes)


def _file_lines(tree: Tree) -> Result:
    return _counted(f"{s.path} ({s.lines})" for s in sizes.long_files(tree))


def _with(function: Function, number: int) -> str:
    return f"{function} ({number})"


def _circles(tree: Tree, find: Callable[[imports.Arrows], list[list[str]]]) -> Result:
    return _counted(" <-> ".join(circle) for circle in find(imports.arrows(tree)))


def _private(tree: Tree) -> Result:
    return _counted(imports.private_imports(tree, *PACKAGES, "docs", "examples", TESTS))


def _way(_: Tree, backend: str) -> Result:
    way = routes.way_of_lif(backend)
    if isinstance(way, str):
        return Result(None, [], (way,))
    return _counted(way[0], (f"entered: {path}" for path in way[1]))


def _cpp_way(tree: Tree) -> Result:
    included = routes.included(tree, *routes.CPU_FORWARD)
    chain = routes.chain_of_calls(tree, included, "lif_fwd", "charge")
    return _counted(chain, (f"included: {path}" for path in included))


def _visits(tree: Tree) -> Result:
    modules = modules_of(tree)
    start = modules.resolve(modules.by_name[PREPARE[0]], PREPARE[1])
    assert start is not None
    stays = visits.visits(modules, start)
    counts = visits.count(stays).most_common()
    walk = (f"stay {number}: {name}: {', '.join(functions)}" for number, (name, functions) in enumerate(stays, 1))
    return Result(counts[0][1], [f"{name} ({count})" for name, count in counts], tuple(walk))


MEASURES = (
    # A rule is written once per device, as one loop forward and one backward. They count as one if backward recomputes
    # by forward's own loop.
    Measure("loops over time, CPU", 2, partial(_loops, device="cpu"), least=1),
    Measure("loops over time, CUDA", 2, partial(_loops, device="cuda"), least=1),
    Measure("loops over time, Triton", 2, partial(_loops, device="triton"), least=1),
    Measure("loops over time, these three", 6, _compiled_loops, least=3),
    Measure("loops over time, reference", 1, partial(_loops, device="reference"), least=1),
    # C++ for the CPU and CUDA, Triton, and autograd for the reference.
    Measure("adjoints of a step", 3, lambda tree: _counted(recurrences.adjoints(tree)), least=3),
    Measure(f"functions above {sizes.MOST_PARAMETERS} parameters", 0, _parameters),
    Measure(f"functions above {sizes.MOST_FUNCTION_LINES} lines", 0, _function_lines),
    Measure(f"files above {sizes.MOST_FILE_LINES} lines", 0, _file_lines),
    Measure("imports of no file", 0, lambda tree: _counted(imports.broken_imports(tree))),
    Measure("circles of files", 0, partial(_circles, find=imports.circles)),
    Measure("circles of folders", 0, partial(_circles, find=imports.room_circles)),
    Measure("imports upward", 0, lambda tree: _counted(imports.upward_imports(tree))),
    Measure("private imports", 0, _private),
    Measure(
        f"identical runs above {copies.LONGEST_RUN} lines",
        0,
        lambda tree: _counted(
            copies.identical_runs(tree.of(*PACKAGES, "csrc", "docs", "examples"), sizes.exempt_from_parameters(tree))
        ),
    ),
    Measure("assertions behind an if, in tests", 0, lambda tree: _counted(assertions.conditional_assertions(tree))),
    # From the call of a layer to the kernel, and the files of the kernel that a reader of the CPU's operator opens.
    Measure("files from LIF to its kernel, reference", 5, partial(_way, backend="reference"), least=2),
    Measure("files from LIF to its kernel, native", 5, partial(_way, backend="native"), least=2),
    Measure("files from LIF to its kernel, Triton", 5, partial(_way, backend="triton"), least=2),
    Measure("C++ files from lif to its neuron, CPU", 5, _cpp_way, least=3),
    Measure("visits of a module, configuration to tensors", 3, _visits, least=2),
)
