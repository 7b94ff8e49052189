"""The stages for a GPU machine, as far as they run without one: arguments, refusals, ncu's table, the smoke program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("rich", reason="the benchmarks need rich: pip install tmkt[train]")

from benchmarks import kernels, pack, run, smoke

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected a stage and its seconds, got: nothing"),
        (["bench", "10", "20"], "expected a stage and its seconds, got: bench 10 20"),
        (["tests"], "expected a stage, got 'tests'"),
        (["check", "soon"], "expected whole seconds, got 'soon'"),
        (["check", "0", "--dry"], "expected whole seconds, got '0'"),
    ],
)
def test_a_stage_that_makes_no_sense_is_an_error(arguments, message):
    done = subprocess.run([ROOT / "benchmarks/gpu.sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("GPU work in stages")
    assert done.stdout.endswith(f"gpu.sh: {message}\n")


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OUT": str(folder), "PYTHON": sys.executable, "TMKT_CACHE": str(folder / "cache")}
    command = [ROOT / "benchmarks/gpu.sh", *arguments, "--dry"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_part_that_is_cut_short_is_said_to_be_and_leaves_its_log(tmp_path):
    done = stage(tmp_path, "models", "6")
    assert done.returncode == 1
    assert ": CUT SHORT at its limit after " in done.stdout
    assert (tmp_path / "models.log").read_text().startswith("== run --models only")


def test_a_part_for_which_no_time_is_left_is_named(tmp_path):
    done = stage(tmp_path, "profile", "10")
    assert done.returncode == 1
    assert "== profile, native: left out, the stage's time is over\n" in done.stdout


METRICS = ["gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum", "smsp__inst_executed.sum"]
STALLS = [f"smsp__average_warps_issue_stalled_{why}_per_issue_active.ratio" for why in ("wait", "barrier", "selected")]


def launch(number: int, kernel: str, *values: str) -> str:
    return ",".join(f'"{cell}"' for cell in (str(number), kernel, *values))


RAW = "\n".join(
    [
        "# backend: native",
        "==PROF== Connected to process 42",
        launch(0, "Kernel Name", *METRICS, *STALLS).replace('"0"', '"ID"'),
        launch(0, "", "ns", "byte", "byte", "inst", "inst", "inst", "inst").replace('"0"', '""'),
        launch(0, "spin_kernel(long)", "900", "0", "0", "9", "0", "0", "1"),
        launch(1, "void tmkt::(anonymous namespace)::forward_kernel<c10::BFloat16, (int)8, 1>(tmkt::LifForwardArgs)",
               "250,000", "380,000,000", "370,000,000", "1,200,000", "1.5", "7.25", "1"),
        launch(2, "void at::native::vectorized_kernel<4, Fill>(int, Fill)", "2,000", "0", "32", "9", "0", "0", "1"),
        launch(3, "spin_kernel(long)", "900", "0", "0", "9", "0", "0", "1"),
        launch(4, "moments_kernel", "100000", "1e6", "1e6", "9", "2", "1", "1"),
    ]
)  # fmt: skip


def test_what_ncu_wrote_becomes_a_table():
    lif, fill, moments = kernels.read(RAW.splitlines())
    assert lif.scene == "lif float32, native"
    assert lif.kernel == "forward_kernel<BFloat16, 8, 1>"
    assert lif.stalls == [("barrier", 7.25), ("wait", 1.5)]
    assert moments.scene == "bn_lif float32, native"
    lines = kernels.table([lif, fill, moments]).splitlines()
    assert lines[2].startswith(
        "| lif float32, native | `forward_kernel<BFloat16, 8, 1>` | 0.250 | 380.0 | 370.0 | 3000 |"
    )
    assert lines[2].endswith(" 1.2 | nan % | nan | nan % | barrier 7.2, wait 1.5 |")
    assert lines[3].startswith("| bn_lif float32, native | `moments_kernel` | 0.100 |")
    assert lines[-1] == "Left out: 1 launches under 0.01 ms, 0.002 ms in all."


def test_rows_of_another_program_are_refused():
    with pytest.raises(ValueError, match="expected '# backend: ' and a launch of spin_kernel first, got 'void tmkt"):
        kernels.read(line for line in RAW.splitlines() if "spin" not in line)


@pytest.mark.parametrize("op", kernels.OPERATORS)
def test_every_scene_runs(op):
    call = kernels.OPERATORS[op](torch.float32, "native", "cpu", True)
    assert all(torch.isfinite(tensor).all() for tensor in call())


def test_smoke_knows_a_wrong_result():
    scene = next(smoke.lif_scenes(torch.float32))
    smoke.check(scene, "native", "cpu", torch.float32)
    late = scene._replace(call=lambda backend, *leaves: tuple(
        out.roll(1, 0) if backend == "native" else out for out in scene.call(backend, *leaves)
    ))  # fmt: skip
    with pytest.raises(AssertionError, match="spikes flipped"):
        smoke.check(late, "native", "cpu", torch.float32)


def test_the_pack_refuses_a_library_that_the_gpu_cannot_run():
    assert "built for 80 86, expected sm_90" in pack.problem("90", {"cuda_archs": "80 86"}, None)
    assert "built for no GPU" in pack.problem("90", {"cuda_archs": ""}, None)
    assert "no compiled library (switched off)" in pack.problem("90", {}, "switched off")


def test_the_pack_takes_the_pinned_versions():
    constraints = (ROOT / "constraints.txt").read_text()
    assert "spikingjelly==2.0.0" in pack.pinned(pack.WHEELS, constraints)
    assert len(pack.pinned(pack.WHEELS, constraints)) == len(pack.WHEELS)


def test_cases_come_by_rank_and_a_dry_run_has_those_of_a_gpu(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "--dry", "--models", "without"])
    points = run.points(run.parse())
    ranks = [case.rank for case, *_ in points]
    assert ranks == sorted(ranks)
    assert points[0][0].op == "lif"
    assert {case.op for case, *_ in points} == {"lif", "bn_lif", "mixup", "camera", "machine"}
    assert all("cuda" in case.devices and max(shape) <= 6 for case, _, shape in points if not case.sweep)


@pytest.mark.parametrize("arguments", [["--warm", "2"], ["--dry", "--device", "cuda"]])
def test_options_that_need_another(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit):
        run.parse()
    assert "expected --" in capsys.readouterr().err
