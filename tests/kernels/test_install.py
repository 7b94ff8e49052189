"""The package without its optional parts (Triton, a compiler, a GPU), and the modules that its import must not load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "setup.py"

STEP = """
from functools import partial
import torch, tmkt_kernels as tk
x_seq = torch.randn(4, 2, 3, 5, 5, requires_grad=True)
weights = torch.arange(float(x_seq.numel())).cos().view_as(x_seq)
results = []
for backend in ("auto", "reference"):
    for layer in (tk.nn.LIF, tk.nn.ParametricLIF, partial(tk.nn.Leaky, 0.9), partial(tk.nn.BatchNormLIF2d, 3)):
        spikes = layer(backend=backend)(x_seq)
        results += [spikes, torch.autograd.grad((spikes * weights).sum(), x_seq)[0]]
for ours, expected in zip(results[:8], results[8:]):
    assert expected.any()
    torch.testing.assert_close(ours, expected)
mixed = tk.time_step_mixup(torch.ones(2, 1, 3, 3), torch.zeros(4, 2, 2, 3, 3), torch.tensor([0, 4]))
assert mixed[:, 1].eq(1).all() and mixed[:, 0].eq(0).all()
"""


def python(script: str, place: Path, **env: str) -> str:
    """Return the output of a script in a fresh interpreter that finds this interpreter's packages after `place`."""
    return python_and_warnings(script, place, **env)[0]


def python_and_warnings(script: str, place: Path, **env: str) -> tuple[str, str]:
    """Return the output of `python`, and its error stream."""
    paths = os.pathsep.join([str(place), *filter(None, sys.path)])
    settings = {"PATH": "/usr/bin:/bin", "PYTHONPATH": paths, **env}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120, check=False, cwd=place)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


@pytest.mark.slow
def test_import_brings_nothing_heavy(tmp_path):
    """Beside torch and numpy, only this package and the standard library: no compiler of torch's, no _events yet."""
    script = """
import sys, torch, numpy
before = set(sys.modules)
import tmkt_kernels
new = set(sys.modules) - before
top = {name.partition(".")[0] for name in new} - sys.stdlib_module_names
heavy = ("torch._dynamo", "torch._inductor", "torch.fx", "tmkt_kernels._events")
print(*top, *(name for name in new if name.startswith(heavy)))
"""
    assert python(script, tmp_path).split() == ["tmkt_kernels"]


@pytest.mark.slow
def test_works_without_triton(tmp_path):
    """As after `pip uninstall triton`: the import system finds no Triton, and a request for it raises."""
    script = f"""
import sys
sys.modules["triton"] = None
{STEP}
try:
    tk.lif(x_seq, backend="triton")
except RuntimeError as error:
    print(error)
"""
    assert "the package triton is not installed; `pip install triton`" in python(script, tmp_path)


@pytest.mark.slow
def test_works_without_a_gpu(tmp_path):
    """The operators run on the CPU when all GPUs are hidden."""
    script = f"{STEP}\nprint(torch.cuda.is_available(), torch.cuda.is_initialized())"
    assert python(script, tmp_path, CUDA_VISIBLE_DEVICES="").split() == ["False", "False"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpus", "asked", "archs"),
    [("9.0\n8.0\n9.0\n", None, "80;90"), (None, None, None), ("9.0\n", "86", "86"), ("9.0\n", "all", None)],
    ids=["of the GPUs", "all without one", "as asked", "all as asked"],
)
def test_architectures_that_are_compiled(tmp_path, gpus, asked, archs):
    """The tools here compile nothing, but record their arguments."""
    if not SETUP.exists():
        pytest.skip("tests run apart from the source tree")
    told = tmp_path / "told"
    tools = {"cmake": f'echo "$@" >>{told}', "ninja": "", "nvcc": "", "c++": ""}
    if gpus:
        (tmp_path / "gpus").write_text(gpus)
        tools["nvidia-smi"] = f"cat {tmp_path}/gpus"
    for name, script in tools.items():
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | ({"TMKT_CUDA_ARCHS": asked} if asked else {})
    folders = [f"--build-base={tmp_path}/base", f"--build-lib={tmp_path}/lib"]
    command = [sys.executable, "setup.py", "-q", "build", *folders]
    subprocess.run(command, cwd=SETUP.parent, check=True, capture_output=True, env=env, timeout=120)
    configure = told.read_text().splitlines()[0].split()
    assert "-DTMKT_CUDA=ON" in configure
    assert [word for word in configure if word.startswith("-DTMKT_CUDA_ARCHS")] == (
        [f"-DTMKT_CUDA_ARCHS={archs}"] if archs else []
    )


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["TMKT_NATIVE=0", "no compiler"])
def test_works_without_a_compiler(tmp_path, reason):
    """setup.py builds a package without binaries that states the reason; auto takes the reference on the CPU."""
    if not SETUP.exists():
        pytest.skip("tests run apart from the source tree")
    env = {"PATH": str(tmp_path)} if reason == "no compiler" else {"PATH": os.environ["PATH"], "TMKT_NATIVE": "0"}
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        f"--build-base={tmp_path}/base",
        f"--build-lib={tmp_path}/lib",
    ]
    subprocess.run(command, cwd=SETUP.parent, check=True, capture_output=True, env=env, timeout=120)
    package = tmp_path / "lib" / "tmkt_kernels"
    assert not list(package.rglob("*.so"))
    said = {"TMKT_NATIVE=0": "switched off by TMKT_NATIVE=0", "no compiler": "no C++ compiler was found"}[reason]
    assert said in json.loads((package / "_build_report.json").read_text())["native"]
    script = f"""
{STEP}
assert tk.__file__.startswith({str(package)!r}), tk.__file__
from tmkt_kernels.backends import choose
print(choose("lif", "cpu", torch.float32, "auto"))
for call in (lambda: tk.lif(x_seq, backend="native"), lambda: tk.events.to_frames(None, 1, (1, 1))):
    try:
        call()
    except (RuntimeError, ImportError, ValueError) as error:
        print(error)
"""
    printed, warned = python_and_warnings(script, tmp_path / "lib")
    assert printed.startswith("reference\n")
    assert said in printed
    assert "backend 'native' cannot serve this call" in printed
    # Once for all calls. The remedy must work without an index, because the package is on none.
    assert warned.count("RuntimeWarning: tmkt_kernels: plain PyTorch serves tensors on cpu, several times slower") == 1
    remedy = (
        "in the folder of the sources (a checkout or the unpacked sdist), `pip install --force-reinstall --no-deps .`"
    )
    assert said in warned
    assert remedy in warned
    main = "import runpy; runpy.run_module('tmkt_kernels', run_name='__main__')"
    printed, warned = python_and_warnings(main, tmp_path / "lib")
    assert said in printed
    assert remedy in printed
    assert "RuntimeWarning" not in warned
