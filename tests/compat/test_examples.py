"""Every example runs, with equal losses before and after."""

import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {
    "spikingjelly_fashion_mnist": ("spikingjelly", "--channels 4"),
    "spikingjelly_spikformer": ("spikingjelly", "--dim 32 --depths 1"),
    "snntorch_tutorial": ("snntorch", ""),
    "norse_mnist": ("norse", ""),
}


@pytest.fixture
def load(monkeypatch):
    """Returns the names of an example's script, which reads these options."""

    def load(name, options):
        pytest.importorskip("mlxtend", reason="the train extra is not installed")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [name, *f"--steps 2 --batch 4 --T 2 --device cpu {options}".split()])
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))

    return load


def test_all_are_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {*TINY, "spikingjelly_models", "race"}


@pytest.mark.parametrize("name", TINY)
def test_example(load, name, capsys):
    library, options = TINY[name]
    pytest.importorskip(library, reason=f"{library} is not installed")
    results = load(name, options)["main"]()
    for ratios in results if isinstance(results, list) else [results]:
        assert ratios["difference"] < 1e-3
        assert ratios["speedup"] > 0
    printed = capsys.readouterr().out
    assert "replaced: " in printed
    assert "peak" in printed


def test_spikingjelly_models(load):
    """Only SEW-ResNet18, because VGG-11's classifier needs gigabytes."""
    pytest.importorskip("spikingjelly", reason="spikingjelly is not installed")
    names = load("spikingjelly_models", "")
    args = names["parse"]("", steps=2, batch=2, size=32)
    args.device = "cpu"
    assert names["compare"](names["sew"], args)["difference"] < 1e-2
