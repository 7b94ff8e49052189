"""The page of all settings, which docs/settings.py makes from the fields."""

import runpy
from pathlib import Path

import pytest

from tmkt.config import Config
from tmkt.settings import Section

ROOT = Path(__file__).parents[2]


def sections(kind: type[Section]) -> list[type[Section]]:
    return [kind, *(found for inner in kind.inner().values() for found in sections(inner))]


@pytest.fixture(scope="module")
def page() -> str:
    hook = runpy.run_path(str(ROOT / "docs" / "settings.py"))
    return hook["on_page_markdown"]((ROOT / "docs" / "settings.md").read_text())


@pytest.mark.parametrize("section", sections(Config), ids=lambda kind: kind.__name__)
def test_every_key_has_a_row_with_its_meaning(page, section):
    assert section.__doc__
    table = page.partition(f"## {section.section or 'The run'}\n")[2].partition("\n## ")[0]
    keys = section.model_fields.keys() - section.inner().keys()
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    assert rows.keys() == keys
    for name in keys:
        meaning = section.model_fields[name].description
        assert meaning
        assert rows[name].count(" | ") == 4
        assert rows[name].split(" | ")[-1].startswith(meaning.split("<")[0].split("{")[0])


def test_a_row_has_value_unit_and_default(page):
    assert "| `timeout` | an integer in [1, 100000000] | seconds | `1800` | " in page
    assert "| `sensor_size` | 2 integers of at least 1 or null | pixels | `[34, 34]` | " in page
    assert "| `classification` | one of tet, ce |  | `tet` | " in page
    assert "| `alpha` | a finite number or 2 finite numbers |  | `2.0` | " in page
