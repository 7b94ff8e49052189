"""Every operator has the same name everywhere, and all its parts."""

import importlib
import operator
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tmkt_kernels
from tmkt_kernels.backends import OPERATORS
from tmkt_kernels.extension import LIBRARY
from tmkt_kernels.ops.bn_lif.reference import BatchNorm
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.ops.mixup.reference import Selection

ROOT = Path(__file__).parents[2]
PACKAGE = Path(tmkt_kernels.__file__).parent
FOLDERS = PACKAGE / "ops"


def test_every_module_is_reached_by_its_name():
    """No function or class of the same name hides a module, as `lif` once hid `tmkt_kernels.lif.reference`."""
    names = [
        found.name
        for room in ("ops", "nn", "events")
        for found in pkgutil.walk_packages([str(PACKAGE / room)], f"tmkt_kernels.{room}.")
        if "triton" not in found.name  # Triton may not be installed
    ]
    assert len(names) > 25
    for name in names:
        module = importlib.import_module(name)
        assert operator.attrgetter(name.partition(".")[2])(tmkt_kernels) is module, name


def test_every_folder_of_operators_is_listed():
    assert sorted(path.parent.name for path in FOLDERS.glob("*/op.py")) == sorted(OPERATORS)


DIFFERENTIABLE = [name for name in OPERATORS if name != "camera"]


def schemas(name):
    """The schemas of an operator's parts, by their name in torch."""
    op = importlib.import_module(f"tmkt_kernels.ops.{name}.op")
    if name in DIFFERENTIABLE:
        return {f"{name}_fwd": op.FORWARD_SCHEMA, f"{name}_bwd": op.BACKWARD_SCHEMA}
    return {f"{name}_frames": op.FRAMES_SCHEMA}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_complete(name):
    for part in ("functional.py", "reference.py", "op.py", "triton.py"):
        assert (FOLDERS / name / part).exists(), part
    for family in ("", "_triton"):
        for part in schemas(name):
            qualified = getattr(torch.ops.tmkt, f"{part}{family}").default._schema.name
            assert torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "CPU"), qualified
            assert torch._library.simple_registry.singleton.find(qualified).fake_impl.kernel is not None, qualified
    assert "opcheck" in (ROOT / "tests" / "kernels" / f"test_{name}.py").read_text()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_operator_has_derivatives(name):
    for family in ("", "_triton"):
        for part in schemas(name):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"tmkt::{part}{family}", "Autograd"), part
    assert "fullgraph=True" in (ROOT / "tests" / "kernels" / f"test_{name}.py").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_library_and_python_define_one_schema(name):
    """C++ has the schema for programs without Python, and Python for installations without a compiled library."""
    script = "import sys, torch; torch.ops.load_library(sys.argv[1]); print(torch.ops.tmkt.{}.default._schema)"
    for part, schema in schemas(name).items():
        command = [sys.executable, "-c", script.format(part), str(LIBRARY)]
        by_library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert by_library == f"tmkt::{part}{schema}"
        by_python = str(getattr(torch.ops.tmkt, f"{part}_triton").default._schema)
        assert by_python == by_library.replace(f"{part}(", f"{part}_triton(", 1)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_sources_and_a_benchmark(name):
    csrc = ROOT / "csrc" / name
    if not csrc.exists():
        pytest.skip("tests run apart from the source tree")
    for part in (f"{name}_cpu.cpp", f"{name}_cuda.cu"):
        text = (csrc / part).read_text()
        for operator_name in schemas(name):
            assert f'"{operator_name}"' in text
    from benchmarks.cases import CASES

    assert any(case.op == name for case in CASES)


@pytest.mark.parametrize("value", [Recurrence, BatchNorm, Selection])
def test_values_of_a_call_have_no_properties(value):
    """torch.compile of torch 2.10 cannot trace a property of a named tuple; only `make wheel` runs that torch."""
    assert [name for name, member in vars(value).items() if isinstance(member, property)] == []


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the sources are not here: this is not a source tree")
def test_only_one_header_includes_torch():
    texts = {path.relative_to(ROOT / "csrc").as_posix(): path.read_text() for path in (ROOT / "csrc").rglob("*.[ch]*")}
    assert [path for path, text in texts.items() if "#include <torch/" in text] == ["common/stable.h"]
    for banned in ("ATen/", "c10/", "torch/extension.h"):
        assert [path for path, text in texts.items() if banned in text] == []
    assert {path.partition("/")[0] for path, text in texts.items() if "pybind11" in text} == {"events"}
