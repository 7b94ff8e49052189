"""The extra `train` names what the trainer imports, and nothing else."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported(package: str) -> set[str]:
    """Names at the top of what a package's files import, the standard library left out."""
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
    assert needed == named
