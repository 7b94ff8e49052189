"""Parameters and lines: functions and files above the limits, and the exempt ones."""

from tests.structure import sizes

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
    assert [s.path for s in sizes.long_files(made)] == ["csrc/long.h", "tests/long.py"]
