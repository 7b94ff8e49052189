"""Imports of the trainer: only the packages of the extra `train`; each folder imports only the folders below it."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "data", "method", "training", "analysis", "export")  # each imports only those before it


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported(package: str) -> set[str]:
    """Return the top-level names that a package's files import, except the standard library."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names


def test_train_is_what_the_trainer_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {canonical(name) for name in (*project["dependencies"], *project["optional-dependencies"]["train"])}
    owners = packages_distributions()
    needed = {canonical(owners[name][0]) for name in imported("tmkt") - {"tmkt", "tmkt_kernels"}}
    needed.remove("nir")  # an extra of its own, for `tmkt export --format nir`
    assert needed == named


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_room_above_it(room):
    above = {*ROOMS[ROOMS.index(room) + 1 :], "cli", "demo"}
    imports = [
        (path.name, name)
        for path in sorted((ROOT / "tmkt" / room).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 2
        for name in ([node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names])
    ]
    assert imports
    assert [each for each in imports if each[1] in above] == []


@pytest.mark.slow
def test_drawing_needs_no_training_libraries():
    code = (
        "import sys, tmkt.analysis.figures, tmkt.analysis.example_batch\n"
        "sys.exit(' '.join({'accelerate', 'tensorboard'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
