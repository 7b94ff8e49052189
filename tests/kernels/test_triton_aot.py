"""The Triton kernels compiled ahead of time for sm_80 and sm_90, without a GPU and without a launch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tmkt_kernels.extension import extension

pytest.importorskip("triton")
pytestmark = [pytest.mark.slow, pytest.mark.gpu_code]
# Only the architectures of the library, because each takes minutes.
BUILT = "" if extension.problem else extension.info["cuda_archs"]
ARCHS = [arch for arch in (80, 90) if str(arch) in BUILT.split()] or [90]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Run compile_triton.py for each architecture, both at once, into an empty cache, and return its output."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "compile_triton.py")]
    jobs = {
        arch: subprocess.Popen([*command, str(arch)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for arch in ARCHS
    }
    outputs = {arch: job.communicate() for arch, job in jobs.items()}
    for arch, job in jobs.items():
        assert job.returncode == 0, outputs[arch][1].decode()
    return {arch: json.loads(out) for arch, (out, _) in outputs.items()}


@pytest.fixture(params=ARCHS, ids=lambda arch: f"sm_{arch}")
def report(request: pytest.FixtureRequest, reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return reports[request.param]


def kernels(report: dict[str, Any], *parts: str) -> dict[str, Any]:
    rows = report["rows"].items()
    found = {
        name: row
        for name, row in rows
        if name.startswith(parts[0] if parts else "") and all(part in name for part in parts)
    }
    assert found, parts
    return found


def test_no_kernel_spills(report: dict[str, Any], record_property: Any) -> None:
    rows = kernels(report)
    assert len(rows) > 45
    record_property("registers", {name: row["registers"] for name, row in rows.items()})
    for name, row in rows.items():
        print(f"{name}: {row['registers']} registers")
    assert not {name: row["spilled"] for name, row in rows.items() if row["spilled"]}


@pytest.mark.parametrize("kernel", ["lif_fwd", "lif_bwd"])
def test_lif_moves_16_bytes_a_thread(report: dict[str, Any], kernel: str) -> None:
    """Every load and store of every step, if N is a multiple of the vector; with T = 40, also in rows t > 0."""
    for name, row in kernels(report, f"{kernel}-float32", "aligned").items():
        assert set(row["widths"]) == {"ld16", "st16"}, name
    for name, row in kernels(report, f"{kernel}-float32", "odd").items():
        assert set(row["widths"]) == {"ld4", "st4"}, name


def test_lif_moves_vectors_of_half_values(report: dict[str, Any]) -> None:
    for name, row in kernels(report, "lif_fwd-bfloat16", "aligned").items():
        assert set(row["widths"]) == {"ld16", "st16"}, name
    for name, row in kernels(report, "lif_bwd-bfloat16", "aligned").items():
        assert set(row["widths"]) <= {"ld8", "st8", "ld16", "st16"}, name


def test_lif_forward_rounds_after_each_operation(report: dict[str, Any]) -> None:
    """There is no FMA in PTX or SASS, because the order of rounding decides spikes."""
    assert not {name: row["fma"] for name, row in kernels(report, "lif_fwd").items() if row["fma"]}


def test_bn_lif_moves_vectors(report: dict[str, Any]) -> None:
    """Accesses have 16 bytes, or 8 if backward goes through several chunks; narrower ones read values of a channel."""
    for name, row in kernels(report, "bn_", "aligned").items():
        wide = {"ld8", "st8"} if "bwd-float32-T40" in name else {"ld8", "st8", "ld16", "st16"}
        assert wide & set(row["widths"]), name
        assert not {"ld1", "st1", "st2", "st4"} & set(row["widths"]), name


def test_mixup_stores_16_bytes_a_thread(report: dict[str, Any]) -> None:
    for name, row in kernels(report, "mixup", "aligned").items():
        assert row["widths"]["st16"] == 1, name
        assert not {"st1", "st2", "st4", "st8", "ld1", "ld2"} & set(row["widths"]), name


def test_mixup_checks_its_indices(report: dict[str, Any]) -> None:
    for name, row in kernels(report, "mixup").items():
        assert row["asserts"] >= 3, name


def test_camera_rounds_after_each_operation(report: dict[str, Any]) -> None:
    """There is no FMA, approximate division or flushed subnormal in the PTX, since all backends have the same bits."""
    assert not {name: row["inexact"] for name, row in kernels(report, "camera").items() if row["inexact"]}


def test_sizes_do_not_recompile(report: dict[str, Any]) -> None:
    """40 sizes of T > MAX_CHUNK and N, including N = 1, and five of mixup need two variants: aligned, unaligned.

    Twelve of the camera need two: with tables, without.
    """
    assert set(report["variants"].values()) == {2}, report["variants"]
