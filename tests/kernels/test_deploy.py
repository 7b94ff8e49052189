"""Models with our layers without Python or without this package: torch.export, AOTInductor, torch.jit.trace and C++."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tmkt_kernels import nn
from tmkt_kernels.extension import LIBRARY

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "csrc" / "deploy.cpp"
COMPILER = os.environ.get("CXX", "g++")
# The first lines of a program without tmkt_kernels.
BARE = "import sys, torch; torch.ops.load_library(sys.argv[1]); assert 'tmkt_kernels' not in sys.modules;"


class Model(torch.nn.Module):
    """Every operator of a network for inference."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNormLIF2d(2, v_threshold=0.5, pool=2)
        self.hidden = torch.nn.Sequential(torch.nn.Linear(8, 6), nn.LIF(v_threshold=0.2), torch.nn.Linear(6, 5))
        self.out = nn.ParametricLIF(channels=5, v_threshold=0.1, return_v=True)

    def forward(self, x_seq):  # [T, B, 2, 4, 4] -> [T, B, 5]
        spikes, v_seq = self.out(self.hidden(self.norm(x_seq).flatten(2)))
        return spikes + v_seq


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def x_seq():
    return torch.randn(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture(scope="module")
def exported(model, x_seq):
    batch = torch.export.Dim("batch", min=2, max=64)
    return torch.export.export(model, (x_seq,), dynamic_shapes=({1: batch},))


@pytest.fixture(scope="module")
def package(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "model.pt2"
    return Path(torch._inductor.aoti_compile_and_package(exported, package_path=str(path)))


def run(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_export_survives_a_file(model, exported, x_seq, tmp_path):
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for x in (x_seq, x_seq[:, :2].contiguous()):
        assert torch.equal(loaded(x), model(x))
    torch.save((x_seq, model(x_seq)), tmp_path / "io.pt")
    script = BARE + "x, y = torch.load(sys.argv[3]); assert torch.equal(torch.export.load(sys.argv[2]).module()(x), y)"
    run(sys.executable, "-c", script, LIBRARY, tmp_path / "model.pt2", tmp_path / "io.pt")


def test_the_library_alone_runs_a_package(model, package, x_seq, tmp_path):
    torch.save((x_seq, model(x_seq)), tmp_path / "io.pt")
    script = BARE + (
        "import torch._inductor.codecache;"  # torch 2.10 forgets to
        "x, y = torch.load(sys.argv[3]); model = torch._inductor.aoti_load_package(sys.argv[2]);"
        "torch.testing.assert_close(model(x), y)"
    )
    run(sys.executable, "-c", script, LIBRARY, package, tmp_path / "io.pt")


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"there is no {COMPILER}")
def test_a_program_without_python_runs_a_package(model, package, x_seq, tmp_path):
    torch_folder = Path(torch.__file__).parent
    libraries = [f"-L{torch_folder / 'lib'}", f"-Wl,-rpath,{torch_folder / 'lib'}", "-Wl,--no-as-needed"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    includes = [f"-isystem{torch_folder / 'include'}", f"-isystem{torch_folder / 'include/torch/csrc/api/include'}"]
    program, source, target = (tmp_path / name for name in ("deploy", "x", "y"))
    link = [*libraries, "-ltorch", "-ltorch_cpu", "-lc10", "-Wl,--allow-shlib-undefined", "-ldl"]
    run(COMPILER, "-std=c++20", "-O0", abi, *includes, PROGRAM, "-o", program, *link)
    x_seq.numpy().tofile(source)
    run(program, LIBRARY, package, source, target, *x_seq.shape)
    y = torch.frombuffer(bytearray(target.read_bytes()), dtype=torch.float32).view(6, 3, 5)
    torch.testing.assert_close(y, model(x_seq))


def test_a_traced_model_survives_a_file(model, x_seq, tmp_path):
    with torch.no_grad():
        torch.jit.trace(model, x_seq).save(tmp_path / "model.pt")
    torch.save((x_seq, model(x_seq)), tmp_path / "io.pt")
    script = BARE + "x, y = torch.load(sys.argv[3]); assert torch.equal(torch.jit.load(sys.argv[2])(x), y)"
    run(sys.executable, "-c", script, LIBRARY, tmp_path / "model.pt", tmp_path / "io.pt")
