"""Imports without a file, in circles, upward and of private names."""

from tests.structure import imports


def test_circles(tree):
    made = tree(
        **{
            "tmkt/__init__.py": "",
            "tmkt/a.py": "from .b import thing\n",
            "tmkt/b.py": "def thing():\n    from . import c\n",
            "tmkt/c.py": "import tmkt.a\n",
            "tmkt/d.py": "from .a import thing\n",
            "tmkt/one/__init__.py": "",
            "tmkt/one/up.py": "from ..two import down\n",
            "tmkt/one/down.py": "",
            "tmkt/two/__init__.py": "",
            "tmkt/two/up.py": "from tmkt.one.down import thing\n",
            "tmkt/two/down.py": "",
            "csrc/x/x.h": '#include "y/y.h"\n#include <vector>\n',
            "csrc/y/y.h": "",
        }
    )
    arrows = imports.arrows(made)
    assert arrows["csrc/x/x.h"] == {"csrc/y/y.h"}
    assert imports.circles(arrows) == [["tmkt/a.py", "tmkt/b.py", "tmkt/c.py"]]
    assert imports.room_circles(arrows) == [["tmkt/one", "tmkt/two"]]


def test_broken_imports(tree):
    made = tree(
        **{
            "tmkt/__init__.py": "",
            "tmkt/a.py": "from . import b, gone\nfrom .gone import thing\nimport tmkt.gone\nimport torch.gone\n",
            "tmkt/b.py": "from .folder import c\nimport importlib\nimportlib.import_module('tmkt_kernels._events')\n",
            "tmkt/folder/c.py": "def f():\n    from ..gone import d\n",
        }
    )
    assert imports.broken_imports(made) == [
        "tmkt/a.py:2 imports tmkt.gone",
        "tmkt/a.py:3 imports tmkt.gone",
        "tmkt/folder/c.py:2 imports tmkt.gone",
    ]


def test_imports_upward(tree):
    made = tree(
        **{
            "tmkt_kernels/a.py": "def f():\n    import tmkt.b\n",
            "tmkt/b.py": "from tmkt_kernels import a\nimport tmkt_kernels\n",
            "tmkt/c.py": "from benchmarks.run import main\nimport tests.recorded\n",
            "benchmarks/run.py": "import tmkt.b, tmkt_kernels.a\n",
        }
    )
    assert imports.upward_imports(made) == [
        "tmkt_kernels/a.py:2 imports tmkt.b",
        "tmkt/c.py:1 imports benchmarks.run",
        "tmkt/c.py:2 imports tests.recorded",
    ]


def test_private_imports(tree):
    made = tree(
        **{
            "tmkt_kernels/__init__.py": "from . import _check\n__version__ = '1'\n",
            "tmkt_kernels/_check.py": "def finite(): ...\n",
            "tmkt_kernels/lif/__init__.py": "from .. import _check, _events\n",
            "tmkt_kernels/lif/op.py": "from .._check import finite\nfrom .reference import _fire\n",
            "tmkt_kernels/lif/reference.py": "import torch\ndef _fire():\n    return torch._C\n",
            "benchmarks/run.py": """
import tmkt_kernels.lif.reference
import tmkt_kernels.lif.reference as r
from tmkt_kernels import __version__, _events
r._fire(), r.fire(), r.__name__
tmkt_kernels.lif.reference._fire()
""",
            "docs/pictures.py": "from tmkt_kernels.lif.reference import _fire\n",
        }
    )
    assert imports.private_imports(made, "tmkt_kernels", "benchmarks") == [
        "tmkt_kernels/lif/__init__.py:1 tmkt_kernels._check",
        "tmkt_kernels/lif/op.py:1 tmkt_kernels._check.finite",
        "benchmarks/run.py:5 tmkt_kernels.lif.reference._fire",
        "benchmarks/run.py:6 tmkt_kernels.lif.reference._fire",
    ]
    assert imports.private_imports(made, "docs") == ["docs/pictures.py:1 tmkt_kernels.lif.reference._fire"]
