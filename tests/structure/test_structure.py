"""The limits of the structure; `make structure` prints the places that each measure counted."""

from pathlib import Path

import pytest

from tests.structure.measures import MEASURES
from tests.structure.sources import Tree


@pytest.fixture(scope="module")
def repository() -> Tree:
    return Tree(Path(__file__).parents[2])


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_limit(measure, repository):
    result = measure.take(repository)
    if result.value is None:
        pytest.skip(result.notes[0])
    assert measure.least <= result.value <= measure.limit, "\n".join(result.places)
