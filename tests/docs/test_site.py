"""The documentation builds without a warning, names everything public, and loads nothing from the network."""

import inspect
import re
from pathlib import Path

import pytest

import tmkt_kernels

pytestmark = pytest.mark.slow

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))  # raises Abort on a warning
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def test_every_page_is_in_the_navigation(site):
    home = site["index.html"]
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert f'href="{name}"' in home or name == "index.html", name


def test_nothing_is_loaded_from_the_network(site):
    for name, html in site.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)", html)
        assert not loaded, f"{name}: {loaded}"


def test_public_names_have_an_entry(site):
    kernels, events = site["api/tmkt_kernels.html"], site["api/events.html"]
    functions = [name for name in tmkt_kernels.__all__ if inspect.isfunction(getattr(tmkt_kernels, name))]
    assert len(functions) >= 4
    for name in functions:
        assert re.search(rf'id="tmkt_kernels[\w.]*\.{name}"', kernels), name
    for name in tmkt_kernels.nn.__all__:
        assert f'id="tmkt_kernels.nn.{name}"' in site["api/nn.html"], name
    for name in tmkt_kernels.events.__all__:
        assert f'id="tmkt_kernels.events.{name}"' in events, name
