"""The operator tests at the SIMD levels below this process's, because a library chooses its level when it is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tmkt_kernels.extension import extension

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
LEVELS = extension.info.get("simd_levels", [])  # of the library, in ascending order
# The tables of cases, shapes and values, which depend on vectors and on the rest of a row.
TABLES = "each_case or each_shape or pooled_as or dyadic or every_value or views_at"
LOWER = LEVELS[: LEVELS.index(extension.info["simd"])] if LEVELS else []


def test_the_levels_are_known():
    assert extension.problem is not None or LEVELS[0] == "baseline"
    assert set(LEVELS) <= {"baseline", "avx2", "avx512"}


@pytest.mark.timeout(1800)
@pytest.mark.skipif("TMKT_LIBRARY" in os.environ, reason="the emulated kernels have no SIMD levels")
@pytest.mark.parametrize("name", ["lif", "bn_lif", "mixup", "edges"])
@pytest.mark.parametrize("level", LOWER)
def test_operator(level, name):
    chosen = f"native-{level} and not streamed and ({TABLES})"
    files = sorted(HERE.glob(f"test_{name}*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files]
    environment = os.environ | {"TMKT_SIMD": level}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
