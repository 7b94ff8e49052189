"""`make gpu-pack`, or `python -m benchmarks.pack`: all that a bare GPU machine lacks beside the tracked files.

gpu-pack/ then holds the compiled library, wheels of the rivals and of their requirements (no torch), and the commit. It
is for a machine that has torch, Triton, pytest, matplotlib and the like, but no network, and that may not build.
`benchmarks/gpu.sh` there uses it.
"""

import argparse
import shutil
import subprocess
import sys

from benchmarks.environment import ROOT, commit
from tmkt_kernels.extension import LIBRARY, extension

FOLDER = ROOT / "gpu-pack"
MOST_BYTES = 60 << 20
WHEELS = ("norse", "snntorch", "spikingjelly", "loguru", "nir", "nirtorch", "SciencePlots")
"""The rivals, and their imports beyond the requirements of torch and matplotlib. All are plain Python."""


def problem(arch: str, info: dict, why_none: str | None) -> str | None:
    """Return why the compiled library cannot be packed for GPUs of `arch`, and what to do; None if it can."""
    build = f"TMKT_CUDA=1 TMKT_CUDA_ARCHS={arch} python setup.py build_ext --inplace"
    if why_none:
        return f"there is no compiled library ({why_none}): {build}"
    if arch not in info.get("cuda_archs", "").split():
        built = info.get("cuda_archs") or "no GPU"
        return f"the library at hand is built for {built}, expected sm_{arch} among them: {build}"
    newer = [path for path in (ROOT / "csrc").rglob("*.*") if path.stat().st_mtime > LIBRARY.stat().st_mtime]
    return f"the library at hand is older than {newer[0].relative_to(ROOT)}: {build}" if newer else None


def pinned(names: tuple[str, ...], constraints: str) -> list[str]:
    """Return name==version of each, from constraints.txt."""
    lines = {line.split("==")[0].lower(): line for line in constraints.split() if "==" in line}
    return [lines[name.lower()] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pack", description=__doc__)
    parser.add_argument("--arch", default="90", help="the GPU's SM version (default 90)")
    arguments = parser.parse_args()
    if why := problem(arguments.arch, extension.info, extension.problem):
        sys.exit(f"gpu-pack: {why}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    shutil.copy(LIBRARY, FOLDER)
    (FOLDER / "commit").write_text(f"{commit()}\n")
    wanted = pinned(WHEELS, (ROOT / "constraints.txt").read_text())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", FOLDER / "wheels", *wanted]
    subprocess.run(command, check=True)
    wheels = sorted((FOLDER / "wheels").iterdir())
    bound = [wheel.name for wheel in wheels if not wheel.name.endswith("-none-any.whl")]
    if bound:
        sys.exit(f"gpu-pack: expected wheels for any Python, got {', '.join(bound)}")
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        sys.exit(f"gpu-pack: {size / 2**20:.1f} MiB, more than {MOST_BYTES >> 20}: build for sm_{arguments.arch} alone")
    print(f"gpu-pack: {len(wheels)} wheels and the library, {size / 2**20:.1f} MiB, commit {commit()}")


if __name__ == "__main__":
    main()
