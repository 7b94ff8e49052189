"""A small tree with known content, for tests of the measures."""

import pytest

from tests.structure.sources import Tree


@pytest.fixture
def tree(tmp_path):
    """Returns a function that makes a tree of files."""

    def make(**files: str) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Tree(tmp_path)

    return make
