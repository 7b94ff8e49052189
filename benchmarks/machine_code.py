"""Machine code of the CUDA kernels, read from the compiled library: `python -m benchmarks.machine_code [--arch 90]`.

For each kernel: registers, spills, the width of its accesses to global memory, the bytes of loads that a thread has in
flight at once, and the instructions per load of its loops. It needs no GPU. `tests/kernels/test_cuda_build.py` holds
the library to these numbers.
"""

import argparse
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks.kernels import short_name
from tmkt_kernels.extension import LIBRARY

WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
"""Bytes of an access by its suffix in the machine code; 4 without one."""


@dataclass
class Kernel:
    """`loads` and `stores`: instructions on global memory by their bytes, with copies to shared memory among the loads.
    `ahead`: the most bytes that a thread loads before it uses the first of them or waits for its copies, in the order
    of the code. `loops`: for each innermost loop that loads, its instructions per load."""

    name: str
    arch: str
    registers: int = 0
    stack: int = 0
    loads: Counter[int] = field(default_factory=Counter)
    stores: Counter[int] = field(default_factory=Counter)
    ahead: int = 0
    instructions: int = 0
    loops: list[float] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """Threads that a multiprocessor has room for, by registers."""
        return min(2048, 65536 // (-(-max(self.registers, 1) // 8) * 8) // 128 * 128)

    @property
    def in_flight(self) -> int:
        """Bytes of loads in flight on a full multiprocessor."""
        return self.threads * self.ahead


def cuobjdump() -> str | None:
    """Return the path of the CUDA toolkit's cuobjdump, or of the one in Triton."""
    triton = find_spec("triton")
    places = list(triton.submodule_search_locations or ()) if triton else []
    shipped = [Path(place, "backends/nvidia/bin/cuobjdump") for place in places]
    return shutil.which("cuobjdump") or next((str(path) for path in shipped if path.exists()), None)


def kernels(library: Path = LIBRARY, arch: str | None = None) -> list[Kernel]:
    """Return all kernels of the library, for one architecture or for each.

    Raises:
        FileNotFoundError: there is no cuobjdump.
    """
    tool = cuobjdump()
    if tool is None:
        raise FileNotFoundError("cuobjdump was found neither on the PATH nor in Triton; install one of them")
    only = ["-arch", f"sm_{arch}"] if arch else []

    def dump(what: str) -> str:
        return subprocess.run([tool, what, *only, str(library)], capture_output=True, text=True, check=True).stdout

    found = {(kernel.arch, kernel.name): kernel for kernel in read_code(dump("-sass"))}
    for at, name, use in read_usage(dump("-res-usage")):
        found[at, name].registers, found[at, name].stack = use["REG"], use["STACK"] + use["LOCAL"]
    return list(found.values())


def read_usage(dump: str) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield (architecture, mangled name, resources) of each kernel."""
    arch = name = ""
    for line in dump.splitlines():
        if match := re.search(r"arch = (sm_\d+)", line):
            arch = match[1]
        if match := re.search(r"Function (\w+):", line):
            name = match[1]
        if "REG:" in line:
            yield arch, name, {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}


def read_code(dump: str) -> Iterator[Kernel]:
    """Yield kernels with the figures of their machine code."""
    arch, kernel = "", None
    code: list[tuple[int, str]] = []  # of the current kernel: address and operation
    last_loop = 0  # start of the last loop found
    waited_for: dict[int, int] = {}  # register -> bytes of the load that fills it
    copied = 0  # bytes on their way to shared memory
    for line in dump.splitlines():
        if match := re.search(r"arch = (sm_\d+)", line):
            arch = match[1]
        if match := re.search(r"Function : (\w+)", line):
            if kernel:
                yield kernel
            kernel, waited_for, copied, code, last_loop = Kernel(match[1], arch), {}, 0, [], -1
        match = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_.]+)([^;]*);", line)
        if not match or kernel is None:
            continue
        address, operation, operands = int(match[1], 16), match[2], match[3]
        kernel.instructions += 1
        code.append((address, operation))
        target = re.search(r"0x([0-9a-f]+)", operands)
        if operation.startswith("BRA") and target and last_loop < int(target[1], 16) < address:  # back, around no loop
            last_loop = int(target[1], 16)
            body = [operation for at, operation in code if at >= last_loop]
            loads = sum(operation.startswith("LDG") for operation in body)
            kernel.loops += [len(body) / loads] if loads else []
        registers = [int(r) for r in re.findall(r"\bR(\d+)", operands)]
        words = operation.split(".")
        width = next((WIDTHS[word] for word in words[1:] if word in WIDTHS), 4)
        read = registers[1:] if words[0] == "LDG" else registers
        if any(register in waited_for for register in read):
            waited_for = {}
        if words[0] == "LDG" and registers:
            first = registers[0]
            waited_for |= {first: width} | {first + i: 0 for i in range(1, width // 4)}
        elif words[0] == "LDGSTS":
            copied += width
        elif words[0] == "DEPBAR":
            copied = 0
        if words[0] in ("LDG", "LDGSTS"):
            kernel.loads[width] += 1
            kernel.ahead = max(kernel.ahead, sum(waited_for.values()) + copied)
        if words[0] == "STG":
            kernel.stores[width] += 1
    if kernel:
        yield kernel


def readable(names: list[str]) -> dict[str, str]:
    """Return mangled names -> names without namespaces and arguments, by c++filt if available."""
    if not shutil.which("c++filt"):
        return {name: name for name in names}
    # Through its input, because the names of all architectures are too long for a command line.
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(short_name, plain.splitlines()), strict=True))


def table(found: list[Kernel]) -> str:
    def counted(widths: Counter[int]) -> str:
        return ", ".join(f"{count} of {width}" for width, count in sorted(widths.items(), reverse=True)) or "none"

    names = readable([kernel.name for kernel in found])
    lines = [
        "| kernel | registers | spilled, bytes | threads | loads: number of bytes | stores | loads under way, KB "
        "| instructions of a loop for each load |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for kernel in sorted(found, key=lambda kernel: names[kernel.name]):
        lines.append(
            f"| `{names[kernel.name]}` | {kernel.registers} | {kernel.stack} | {kernel.threads} | "
            f"{counted(kernel.loads)} | {counted(kernel.stores)} | {kernel.in_flight / 1024:.0f} | "
            + (f"{min(kernel.loops):.0f} to {max(kernel.loops):.0f} |" if kernel.loops else "|")
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine_code", description=__doc__)
    parser.add_argument("--arch", default="90", help="SM version (default 90)")
    parser.add_argument("--library", type=Path, default=LIBRARY)
    arguments = parser.parse_args()
    print(table(kernels(arguments.library, arguments.arch)))


if __name__ == "__main__":
    main()
