"""Compile csrc/*/*_cuda.cu into a library, or defects.cu into a program, for the CPU, and print its path: `python
build.py operators|defects [plain|address|thread]`, the last two under that sanitizer.

Of CUDA's syntax, C++ lacks `kernel<<<config>>>(arguments)` and `__shared__`. Both are rewritten line by line, so that
messages name positions in the originals.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build/emulator"
COMPILER = os.environ.get("CXX", "g++")

# One g++ for all, so that results on the CPU and CUDA differ only by exp, log and cos. emulator.cpp handles the checks.
# A low limit of blocks makes a thread of bn_lif go from sample to sample even on small tensors.
FLAGS = "-std=c++20 -O1 -g1 -fPIC -w -fvisibility=hidden -ffp-contract=off -mf16c -D__assert_fail=emulator_assert_fail"
FLAGS += " -DTMKT_ENOUGH_BLOCKS=4"
CHECKS = "-fsanitize=alignment,null,bounds,integer-divide-by-zero"
SCHEDULER = [HERE / "emulator.cpp", HERE / "runtime.cpp"]
KINDS = {
    "plain": ("", ""),
    "address": ("-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all", "-DEMULATOR_ADDRESS"),
    "thread": ("-fsanitize=thread", "-DEMULATOR_THREAD"),
}


def closing(text: str, start: int) -> int:
    """Return the index after the bracket that closes the one at `start`."""
    open_, close = text[start], {"(": ")", "<": ">", "[": "]"}[text[start]]
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == open_) - (text[at] == close)
        if depth == 0:
            return at + 1
    raise ValueError(f"no {close} closes {text[start : start + 40]!r}")


def rewrite_launches(text: str) -> str:
    """`kernel<T><<<grid, block>>>(arguments)` becomes `emulator::launch({grid, block}, kernel<T>, arguments)`."""
    while (at := text.find("<<<")) >= 0:
        kernel = re.search(r"[\w:]+\s*(<[^;{}]*>)?\s*$", text[:at])
        end = text.find(">>>", at)
        first = text.find("(", end)
        if kernel is None or end < 0 or first < 0:
            raise ValueError(f"not a launch that this script knows: {text[at - 40 : at + 40]!r}")
        last = closing(text, first)
        arguments = text[first + 1 : last - 1]
        call = f"emulator::launch({{{text[at + 3 : end]}}}, {kernel[0].strip()}{', ' if arguments.strip() else ''}"
        text = text[: kernel.start()] + call + arguments + text[last - 1 :]
    return text


def split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "<([") - (character in ">)]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def rewrite_shared(text: str) -> str:
    """`__shared__ T name[n];` becomes a reference to an array of the block's memory, `extern` or not."""

    def declaration(match: re.Match) -> str:
        dynamic, body = match[1], match[2]
        alignment = re.search(r"(?:alignas|__align__)\(([^()]*)\)", body)
        align = alignment[1] if alignment else "1"
        if alignment:
            body = body.replace(alignment[0], " ")
        first, *more = split(body)
        parsed = re.fullmatch(r"\s*(.*?)(\w+)\s*((?:\[[^\]]*\]\s*)*)", first, re.S)
        if parsed is None:
            raise ValueError(f"not a __shared__ that this script knows: {match[0]!r}")
        kind = parsed[1].strip()
        made = []
        for declarator in (parsed[2] + parsed[3], *more):
            name, sizes = re.fullmatch(r"\s*(\w+)\s*((?:\[[^\]]*\]\s*)*)", declarator, re.S).groups()
            if dynamic:
                made.append(f"auto* {name} = emulator::dynamic_shared_array<{kind}>({align});")
            else:
                made.append(
                    f"using {name}_shared = {kind} {sizes}; "
                    f"{name}_shared& {name} = emulator::shared<{name}_shared>([] {{}}, {align});"
                )
        return " ".join(made) + "\n" * match[0].count("\n")

    return re.sub(r"\b(extern\s+)?__shared__\b([^;]*);", declaration, text)


def translate(source: Path) -> str:
    text = re.sub(r"//[^\n]*", "", source.read_text())
    text = rewrite_shared(rewrite_launches(text))
    text = text.replace("STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA,", "STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU,")
    return f'#line 1 "{source.relative_to(ROOT)}"\n{text}'


def is_cuda(source: Path) -> bool:
    return source.suffix in (".cu", ".cuh") or source.name == "cuda.h"


def compile_all(kind: str, sources: list[Path], includes: list[str], target: Path, link: list[str]) -> Path:
    """Build `target` if a source, a header or a flag has changed, one process at a time."""
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        headers = sorted(p for p in (*ROOT.glob("csrc/**/*.*h"), *HERE.glob("**/*.h"), HERE / "build.py"))
        state = hashlib.sha256(" ".join([COMPILER, *includes, *link, *KINDS[kind]]).encode())
        for path in (*headers, *sources):
            state.update(path.read_bytes())
        stamp = target.with_suffix(".sha256")
        if target.exists() and stamp.exists() and stamp.read_text() == state.hexdigest():
            return target
        translated = folder / "src"
        for path in ROOT.glob("csrc/**/*"):  # g++ finds these headers with device code before those in csrc/
            if is_cuda(path) and path.suffix != ".cu":
                out = translated / path.relative_to(ROOT / "csrc")
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(translate(path))
        sanitize, define = KINDS[kind]

        def compile_one(source: Path) -> Path:
            own = source in SCHEDULER  # describes its fibers to the sanitizers, and is not sanitized itself
            flags = [*FLAGS.split(), *(define.split() if own else [*CHECKS.split(), *sanitize.split()])]
            text = source
            if source.suffix == ".cu":
                text = translated / source.with_suffix(".cpp").name
                text.write_text(translate(source))
                flags += includes
            paths = [f"-I{translated}", f"-I{ROOT / 'csrc'}", f"-I{HERE / 'include'}", f"-I{HERE}"]
            output = folder / f"{source.stem}.o"
            command = [COMPILER, *flags, *paths, *torch_flags(), "-c", text, "-o", output]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(
                    f"{source.relative_to(ROOT)} does not compile on the emulator:\n{done.stderr[:8000]}"
                )
            return output

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(compile_one, sources))
        subprocess.run([COMPILER, *sanitize.split(), *objects, "-o", target, *link], check=True)
        stamp.write_text(state.hexdigest())
    return target


def torch_folder() -> Path:
    return Path(find_spec("torch").submodule_search_locations[0])


def torch_flags() -> list[str]:
    defines = [
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        '-DTMKT_CUDA_VERSION=""',
        '-DTMKT_CUDA_ARCHS=""',
        '-DTMKT_CUDA_PTX=""',
    ]
    return [*defines, "-isystem", str(torch_folder() / "include")]


def build_operators(kind: str = "plain") -> Path:
    """Build libtmkt_kernels.so with the CUDA launchers as the operators' implementation on the CPU."""
    sources = [*SCHEDULER, ROOT / "csrc/module.cpp", *sorted(ROOT.glob("csrc/*/*_cuda.cu"))]
    link = ["-shared", f"-L{torch_folder() / 'lib'}", "-ltorch_cpu", "-Wl,--allow-shlib-undefined"]
    return compile_all(kind, sources, ["-include", "operators.h"], BUILD / kind / "libtmkt_kernels.so", link)


def build_defects(kind: str = "plain") -> Path:
    """Build the program of kernels with one planted defect each."""
    sources = [*SCHEDULER, HERE / "defects.cu"]
    return compile_all(kind, sources, [], BUILD / f"defects-{kind}" / "defects", [])


if __name__ == "__main__":
    print({"operators": build_operators, "defects": build_defects}[sys.argv[1]](*sys.argv[2:]))
