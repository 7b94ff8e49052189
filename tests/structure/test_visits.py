"""Visits of modules on the way from one function."""

from tests.structure import visits
from tests.structure.modules import modules_of

PREPARE = """
from tmkt_kernels import events
from ..config import Config
from . import splits
from .sources import Source, open_source

TABLE = {"a": splits.by_class, "b": splits.by_name}

def prepare(config: Config):
    source = open_source(config.data)
    again = config.checked()
    kinds = [one.kind() for one in source.readers]
    TABLE[config.name](source)
    label(events.read(), splits.order(again))
    return source.mapped(), open_source(config.data)

def label(a, b): ...
"""


def test_visits(tree):
    sources = """
from typing import Protocol
class Reader(Protocol):
    def kind(self): ...
class Source:
    readers: "list[Reader]"
    def __init__(self, data): ...
    def mapped(self): return self._all()
    def _all(self): ...
def open_source(data) -> Source | None:
    return Source(data)
"""
    made = tree(
        **{
            "tmkt_kernels/events.py": "def read(): ...\n",
            "tmkt_kernels/__init__.py": "",
            "tmkt/__init__.py": "",
            "tmkt/config.py": "class Config:\n    name: str\n    def checked(self): ...\n",
            "tmkt/data/__init__.py": "from .prepare import prepare\n",
            "tmkt/data/prepare.py": PREPARE,
            "tmkt/data/readers.py": "class File:\n    def kind(self): ...\nclass Other:\n    def kind(self): ...\n",
            "tmkt/data/sources.py": sources,
            "tmkt/data/splits.py": "def by_class(s): ...\ndef by_name(s): ...\ndef order(s): ...\n",
        }
    )
    modules = modules_of(made)
    stays = visits.visits(modules, modules.resolve(modules.by_name["tmkt.data"], "prepare"))
    assert stays == [
        ("tmkt.data.prepare", ["prepare"]),
        ("tmkt.data.sources", ["open_source", "__init__"]),
        ("tmkt.config", ["checked"]),
        ("tmkt.data.readers", ["kind"]),
        ("tmkt.data.splits", ["by_class"]),
        ("tmkt.data.prepare", ["label"]),
        ("tmkt.data.splits", ["order"]),
        ("tmkt.data.sources", ["mapped", "_all"]),
    ]
    assert visits.count(stays)["tmkt.data.sources"] == 2
