"""The files on the way of a call, in Python and in C++."""

import sys

import pytest

from tests.structure import routes


def test_the_way_of_a_call(tree, tmp_path, monkeypatch):
    """a calls helper, which returns, and then late; late calls the kernel's package, which calls inner."""
    tree(
        **{
            "entered/__init__.py": "from .a import go\n",
            "entered/a.py": "from .helper import ask\n"
            "def go():\n    ask()\n    from . import late\n    return sorted([2, 1], key=late.key)\n",
            "entered/helper.py": "def ask():\n    return 1\n",
            "entered/late.py": "from . import not_entered\nfrom .inner import run\n"
            "from elsewhere.kernel import launch\ndef key(x):\n    return launch(run)\n",
            "entered/inner.py": "def run():\n    return 1\n",
            "entered/not_entered.py": "",
        }
    )
    kernel = tmp_path.parent / f"{tmp_path.name}-elsewhere" / "elsewhere"
    kernel.mkdir(parents=True)
    (kernel / "kernel.py").write_text("def launch(run):\n    return run()\n")
    monkeypatch.syspath_prepend(kernel.parent)
    monkeypatch.syspath_prepend(tmp_path)
    import entered

    before = sys.getprofile()
    way = routes.way_of(entered.go, tmp_path, "elsewhere")
    assert way == (
        ["entered/a.py", "entered/late.py"],
        ["entered/a.py", "entered/helper.py", "entered/late.py", "entered/inner.py"],
    )
    assert routes.way_of(entered.go, tmp_path)[0] == ["entered/a.py", "entered/late.py", "entered/inner.py"]
    assert sys.getprofile() is before


def test_included(tree):
    made = tree(
        **{
            "csrc/lif/lif_cpu.cpp": '#include <vector>\n#include "lif/lif_op.h"\n',
            "csrc/lif/lif_op.h": '#include "common/stable.h"\n#include "scan/scan.h"\n',
            "csrc/scan/scan.h": '#include "lif/lif_op.h"\n',
            "csrc/common/stable.h": '#include "mixup/mixup.h"\n',
            "csrc/mixup/mixup.h": "",
        }
    )
    assert routes.included(made, "csrc/lif/lif_cpu.cpp") == [
        "csrc/lif/lif_cpu.cpp",
        "csrc/lif/lif_op.h",
        "csrc/scan/scan.h",
    ]


def test_the_shortest_chain_of_calls(tree):
    made = tree(
        **{
            "csrc/op.h": "int fwd() { return Backend(x).forward(args); }",
            "csrc/cpu.cpp": "struct Cpu { void forward() const { helper([&] { PICK(loop)(); }); } };\n"
            "void helper() { detour(); }\nvoid detour() { loop(); }",
            "csrc/loop.h": "void loop() { neuron.charge(v); }",
            "csrc/neuron.h": "float charge() { return 1; }\nvoid apart() { fwd(); }",
        }
    )
    files = list(made.sources)
    chain = ["csrc/op.h", "csrc/cpu.cpp", "csrc/loop.h", "csrc/neuron.h"]
    assert routes.chain_of_calls(made, files, "fwd", "charge") == chain
    with pytest.raises(ValueError, match="fwd: no chain of calls leads to apart"):
        routes.chain_of_calls(made, files, "fwd", "apart")
