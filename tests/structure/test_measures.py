"""Every measure on a small tree, in which it finds exactly what is there."""

import sys

import pytest

from tests.structure import assertions, copies, cpp, imports, recurrences, routes, sizes, visits
from tests.structure.modules import modules_of
from tests.structure.sources import Tree


@pytest.fixture
def tree(tmp_path):
    """Makes a tree of files."""

    def make(**files: str) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Tree(tmp_path)

    return make


CPP = """
#pragma once
#define LOOP(x) for (;;) { charge(x); }
namespace tmkt {
enum class Kind { kOne, kTwo };
constexpr int kTable[] = {1, 2};
template <typename T, int K = 2>
struct Neuron : Base {
  T value{};
  explicit Neuron(T value) : value{value} {}
  // for (;;) charge(v);
  T charge(T v, std::pair<T, T> x = {1, 2}) const { return v + x.first; }
  bool operator()(int a) const { return a > 0; }
  bool operator<(const Neuron& other) const { return value < other.value; }
};
namespace {
template <typename F>
__attribute__((always_inline)) inline auto walk(const F& f, void (*g)(int, int), int64_t n) -> decltype(f(n)) {
  const char* text = "for (;;) { charge(}";
  return f(n);
}
}  // namespace
__global__ void __launch_bounds__(64) kernel() {
}
extern "C" int entry(int a) { return a; }
extern "C" {
int another(int a) { return a; }
}
}
"""


def test_cpp_functions():
    found = [(f.name, f.parameters, f.lines) for f in cpp.functions(CPP)]
    assert found == [
        ("Neuron.Neuron", 1, 1),
        ("Neuron.charge", 2, 1),
        ("Neuron.operator()", 1, 1),
        ("Neuron.operator<", 1, 1),
        ("walk", 3, 5),
        ("kernel", 0, 2),
        ("entry", 1, 1),
        ("another", 1, 1),
    ]


def test_cpp_calls_in_loops():
    body = cpp.tokens(
        "a(); for (int i = b(); i < n; ++i) c(d()); while (e()) { for (;;) if (x < (y)) f<T, 2>(); } g();"
    )
    assert [name for name, looped in cpp.calls(body) if looped] == ["c", "d", "f"]
    assert [name for name, looped in cpp.calls(body) if not looped] == ["a", "b", "e", "g"]


def test_loops_over_time(tree):
    cpu = """
    void forward(int T) { for (int t = 0; t < T; ++t) { v = neuron.charge(v, x[t]); } }
    void once() { charge(v, x); }
    void scan(int T) { for (int t = 0; t < T; ++t) once(); }
    void other(int T) { for (int t = 0; t < T; ++t) add(t); charge(v, x); }
    """
    triton = """
def scan_kernel(x, T, NEURON):
    for t in range(T):
        v = NEURON.charge(v, x)
def other_kernel(x):
    v = NEURON.charge(v, x)
    for t in range(T):
        v += 1
def chunk(x):
    for t in range(T):
        v = NEURON.charge(v, x)
def group(x):
    for t in range(T):
        g = NEURON.adjoint(g, x)
def back_kernel(x):
    chunk(x)
    group(x)
"""
    reference = (
        "def reference(x):\n    return [lif_step(v, now) for now in x]\ndef other(x):\n    return lif_step(0, x)\n"
    )
    made = tree(
        **{
            "csrc/scan/scan_simd-inl.h": cpu,
            "csrc/scan/scan.cuh": "void again() { for (;;) h = charge(h); }\n"
            "void back() { again(); for (;;) { g = adjoint(h); } }",
            "tmkt_kernels/ops/scan_triton.py": triton,
            "tmkt_kernels/ops/lif/reference.py": reference,
            "tests/own.py": reference,
        }
    )
    found = {
        device: [[f.name for f in parts] for parts in recurrences.loops(made, device)] for device in recurrences.DEVICES
    }
    assert found == {
        "cpu": [["forward"], ["scan"]],
        "cuda": [["again", "back"]],
        "triton": [["scan_kernel"], ["chunk", "group"]],
        "reference": [["reference"]],
    }


def test_adjoints(tree):
    made = tree(
        **{
            "csrc/lif/lif_neuron.h": "struct N { float charge_adjoint(float g) { return g; } };",
            "csrc/lif/inline.h": "float back(float g, float ds_dh) { return g * ds_dh; }",
            "csrc/lif/pointer.h": "void back(float g) { float* ds_dh = all(); use(lif_adjoint(g, ds_dh[0])); }",
            "tmkt_kernels/reference.py": "def backward(g, u):\n    return g * sg.derivative(u)\n",
            "tmkt_kernels/caller.py": "def backward(g, u):\n    return adjoint(g, sg.derivative(u))\n",
            "tests/own.py": "def adjoint(g):\n    return g\n",
        }
    )
    assert recurrences.adjoints(made) == ["tmkt_kernels/reference.py", "csrc/lif/inline.h", "csrc/lif/lif_neuron.h"]


NINE = "a, b, c, d, e, f, g, h, i"


def test_parameters(tree):
    python = f"""
import triton
class Public(Base):
    def method(self, {NINE}): ...
    def short(self, a, b, c, d, e, f, *g, **h): ...
class Base:
    def __init__(self, {NINE}): ...
def public({NINE}):
    def inner(a, b, c, d, e, f, g, /, h, *, i): ...
@triton.jit
def kernel({NINE}): ...
@triton.jit
def handed_kernel({NINE}): ...
@triton.jit(do_not_specialize=["T"])
def helper({NINE}): ...
def launch(of, grid):
    of[grid](1)
    kernel[grid](2)
launch(handed_kernel, 3)
"""
    nine = "int a, int b, int c, int d, int e, int f, int g, int h, int i"
    made = tree(
        **{
            "tmkt_kernels/__init__.py": "from .code import Public, public\n__all__ = ['Public', 'public']\n",
            "tmkt_kernels/code.py": python,
            "tmkt/models/small.py": f"@register_model\ndef small({NINE}): ...\n",
            "csrc/op.cpp": f"void f({nine}) {{}}\nvoid op({nine}) {{}}\nauto boxed = TORCH_BOX(&op<Cpu>);\n",
            "csrc/op.cu": f"__global__ void kernel({nine}) {{}}\nvoid cuda({nine.replace('int', 'pair<A, B>')}) {{}}\n",
        }
    )
    held, exempt = sizes.functions_with_many_parameters(made)
    assert [f"{f} {f.parameters}" for f in held] == [
        "tmkt_kernels/code.py: Public.method 9",
        "tmkt_kernels/code.py: public.inner 9",
        "tmkt_kernels/code.py: helper 9",
        "csrc/op.cpp: f 9",
        "csrc/op.cu: cuda 9",
    ]
    assert [(f.name, reason) for f, reason in exempt] == [
        ("Base.__init__", "public"),
        ("public", "public"),
        ("kernel", "kernel"),
        ("handed_kernel", "kernel"),
        ("small", "backbone"),
        ("op", "schema"),
        ("kernel", "kernel"),
    ]


def test_lines(tree):
    sixty = "def fits():\n" + "    pass\n" * 59
    made = tree(
        **{
            "tmkt/a.py": sixty + sixty.replace("fits", "long") + "    pass\n",
            "csrc/a.h": "void fits() {" + "\n" * 59 + "}\n\nvoid surrogate_derivative() {" + "\n" * 60 + "}\n",
            "csrc/long.h": "\n" * 401,
            "csrc/fits.cuh": "\n" * 400,
            "tests/long.py": "\n" * 401,
        }
    )
    held, exempt = sizes.long_functions(made)
    assert [(f.name, f.lines) for f in held] == [("long", 61)]
    assert [(f.name, f.lines) for f in exempt] == [("surrogate_derivative", 61)]
    held, without_limit = sizes.long_files(made)
    assert [s.path for s in held] == ["csrc/long.h"]
    assert [s.path for s in without_limit] == ["tests/long.py"]


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


def test_identical_runs(tree):
    eight, ten = ([f"{word}_{i} = {i}" for i in range(count)] for word, count in (("may", 8), ("copied", 10)))
    spaced = "\n\n# of its own\n".join(line.replace(" = ", "  =  ") for line in ten)
    made = tree(
        **{
            "tmkt/a.py": "\n".join([*eight, "first = 1", *ten, "last = 1"]),
            "tmkt/b.py": "\n".join([*eight, "other = 1"]) + "\n" + spaced,
        }
    )
    assert list(map(str, copies.identical_runs(made.of("tmkt")))) == ["10 lines: tmkt/a.py:10 and tmkt/b.py:10"]


def test_imports_and_spelled_out_parameters_are_no_runs(tree):
    names = "\n".join(f"    name_{i}," for i in range(10))
    file = f"from x import (\n{names}\n)\n\n\ndef f(\n{names}\n):\n    return 1\n"
    made = tree(**{"tmkt/a.py": file, "tmkt/b.py": file.replace("return 1", "return 2")})
    runs = copies.identical_runs(made.of("tmkt"), {("tmkt/a.py", 15), ("tmkt/b.py", 15)})
    assert runs == []
    assert [run.lines for run in copies.identical_runs(made.of("tmkt"))] == [12]


CONDITIONAL = """
def test_both(x):
    if x:
        assert x
    else:
        with pytest.raises(ValueError):
            f(x)
    for y in x:
        assert y

def test_one(x):
    if x:
        assert x
    elif x.y:
        np.testing.assert_allclose(x, 1)
    def inner():
        if x:
            return
        else:
            torch.testing.assert_close(x, 1)

def test_skipped(x):
    if not x:
        pytest.skip("no x")
    try:
        f(x)
    except ValueError:
        assert x

if __name__ == "__main__":
    assert 1
"""


def test_conditional_assertions(tree):
    made = tree(**{"tests/tmkt/test_a.py": CONDITIONAL, "tests/b.cpp": "int main() {}", "tmkt/a.py": CONDITIONAL})
    lines = CONDITIONAL.splitlines()
    found = [place.partition(":") for place in assertions.conditional_assertions(made)]
    assert {path for path, _, _ in found} == {"tests/tmkt/test_a.py"}
    assert [lines[int(line) - 1].strip() for _, _, line in found] == ["elif x.y:", "if x:", "except ValueError:"]


def test_the_way_of_a_call(tree, tmp_path, monkeypatch):
    """a asks helper, which returns, and calls late; late calls the kernel's package, which calls inner."""
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
