"""The CUDA kernels as compiled, without a GPU: checks of the machine code in the installed library."""

import re
import shutil
from typing import NamedTuple

import pytest

from benchmarks import machine_code
from benchmarks.machine_code import Kernel
from tmkt_kernels.extension import LIBRARY, extension

MOST_REGISTERS = 168  # at least 384 threads then share a multiprocessor of 65,536 registers
LEAST_IN_FLIGHT = 40 << 10  # bytes of loads per multiprocessor, which the design needs to hide the latency of memory
MOST_FOR_A_ROW = 105  # instructions in a loop of backward per row of 4 neurons; 131 before its optimisation
BYTES = {"float": 4, "BFloat16": 2, "Float16": 2}


class Allowed(NamedTuple):
    """The number of instructions that may be narrower than a thread's row: parameters, statistics, indices and sums.
    Also the bytes of the narrowest number in a row that is read or written, if its type may differ from the kernel's.
    """

    loads: int = 0
    stores: int = 0
    read: int | None = None
    written: int | None = None


# Kernels with 4 or 8 neighbours per thread, in one channel for those of bn_lif.
WIDE = re.compile(r"\w+<(\w+), (?:Neighbours<([48]), 1>|([48])[,>]).*")
NARROW = {
    r"forward_kernel<\w+, \d, 0>": Allowed(),
    r"forward_kernel<\w+, \d, 1>": Allowed(loads=5),
    r"forward_kernel<\w+, 4, 4>": Allowed(loads=4 * 5),
    r"forward_kernel<\w+, 8, 8>": Allowed(loads=8 * 5),
    r"backward_kernel<\w+, 4, 0, false, -?\d>": Allowed(),
    r"backward_kernel<\w+, 4, 1, false, -1>": Allowed(loads=5),
    r"backward_kernel<\w+, 4, 1, true, -1>": Allowed(loads=5, stores=4 * 5),
    r"backward_kernel<\w+, 4, 4, false, -1>": Allowed(loads=4 * 5),
    r"backward_kernel<\w+, 4, 4, true, -1>": Allowed(loads=4 * 5, stores=4 * 5),
    r"moments_kernel<\w+, Neighbours<\d, 1> ?>": Allowed(loads=1, stores=3),
    r"forward_kernel<\w+, Neighbours<\d, 1> ?>": Allowed(loads=4),
    r"backward_kernel<\w+, Neighbours<4, 1>, -?\d, \d>": Allowed(loads=6, stores=2),
    r"forward_kernel<\w+, \d>": Allowed(read=1),  # mixup, from uint8 on
    r"backward_events_kernel<\w+, \d>": Allowed(loads=4, written=2),
    r"backward_static_kernel<\w+, \d>": Allowed(loads=6, written=2),
}
# lif's forward, its backward with a surrogate compiled in, mixup's forward.
FILLED = re.compile(r"forward_kernel<\w+, [48](, \d)?>|backward_kernel<\w+, 4, 0, false, \d>")
LEAN = re.compile(r"backward_kernel<\w+, (4, 0, false, 0|Neighbours<4, 1>, 0, \d)>")  # those of atan


def faults(name: str, kernel: Kernel) -> list[str]:
    """Return the faults in the accesses of a wide kernel."""
    match = WIDE.fullmatch(name)
    allowed = next((NARROW[pattern] for pattern in NARROW if re.fullmatch(pattern, name)), None)
    if match is None or allowed is None:
        return [f"{name}: it is not known which of its accesses may be narrow"]
    neighbours, size = int(match[2] or match[3]), BYTES[match[1]]
    found = []
    for what, widths, most, of_type in (
        ("loads", kernel.loads, allowed.loads, allowed.read),
        ("stores", kernel.stores, allowed.stores, allowed.written),
    ):
        row = min(16, neighbours * (of_type or size))
        narrow = sum(count for width, count in widths.items() if width < row)
        if narrow > most:
            found.append(f"{name}, {kernel.arch}: {narrow} {what} of less than {row} bytes, {most} are allowed")
    if FILLED.fullmatch(name) and kernel.in_flight < LEAST_IN_FLIGHT:
        found.append(f"{name}, {kernel.arch}: {kernel.in_flight} bytes of loads under way, not {LEAST_IN_FLIGHT}")
    if LEAN.fullmatch(name) and not 0 < max(kernel.loops, default=0.0) <= MOST_FOR_A_ROW:
        found.append(
            f"{name}, {kernel.arch}: {kernel.loops} instructions for a row, at most {MOST_FOR_A_ROW} are allowed"
        )
    return found


@pytest.fixture(scope="module")
def kernels() -> list[Kernel]:
    if not extension.info.get("cuda_archs"):
        pytest.skip("the installed library was built without CUDA")
    if machine_code.cuobjdump() is None:
        pytest.skip("cuobjdump was found neither on the PATH nor in Triton")
    return machine_code.kernels(LIBRARY)


@pytest.fixture(scope="module")
def wide(kernels) -> list[tuple[str, Kernel]]:
    """Return the kernels with 4 or 8 neighbours per thread, by their readable names."""
    if not shutil.which("c++filt"):
        pytest.skip("c++filt, which reads the kernels' names, is not installed")
    names = machine_code.readable([kernel.name for kernel in kernels])
    return [(names[kernel.name], kernel) for kernel in kernels if WIDE.fullmatch(names[kernel.name])]


@pytest.mark.slow
def test_every_operator_is_there_for_every_architecture(kernels):
    assert {kernel.arch for kernel in kernels} == {f"sm_{arch}" for arch in extension.info["cuda_archs"].split()}
    for arch in {kernel.arch for kernel in kernels}:
        names = " ".join(kernel.name for kernel in kernels if kernel.arch == arch)
        for part in ("forward_kernel", "backward_kernel", "moments_kernel", "gradients_kernel", "CellPack", "mixup"):
            assert part in names, f"{arch} lacks {part}"


def test_no_kernel_spills(kernels):
    assert len(kernels) > 50
    assert not [(kernel.arch, kernel.name) for kernel in kernels if kernel.stack]


def test_registers_leave_room_for_384_threads(kernels):
    assert min(kernel.registers for kernel in kernels) > 0
    assert max(kernel.registers for kernel in kernels) <= MOST_REGISTERS


def test_wide_kernels_access_whole_rows_and_keep_loads_under_way(wide):
    seen = {pattern for pattern in NARROW for name, _ in wide if re.fullmatch(pattern, name)}
    assert seen == set(NARROW)
    assert not [fault for name, kernel in wide for fault in faults(name, kernel)]


LISTING = """
arch = sm_90
    Function : wide
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.128 R8, desc[UR4][R2.64+0x800] ;
        /*0020*/              @!P0 LDG.E.128.CONSTANT R12, desc[UR4][R2.64+0x1000] ;
        /*0030*/                   FADD R4, R4, R5 ;
        /*0040*/                   STG.E.EF.128 desc[UR4][R16.64], R4 ;
        /*0050*/               @P0 BRA 0x20 ;
        /*0060*/               @P1 BRA 0x0 ;
        /*0070*/                   BRA 0x70 ;
    Function : narrow
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/                   FADD R4, R4, R5 ;
        /*0020*/               @P1 LDG.E.U16 R8, desc[UR4][R2.64+0x800] ;
        /*0030*/                   STG.E.EF.64 desc[UR4][R16.64], R4 ;
        /*0040*/                   STG.E desc[UR4][R16.64+0x8], R6 ;
    Function : copies
        /*0000*/                   LDGSTS.E.BYPASS.128 [R23], desc[UR16][R14.64] ;
        /*0010*/                   LDGSTS.E.64 [R24], desc[UR16][R14.64] ;
        /*0020*/                   DEPBAR.LE SB0, 0x0 ;
        /*0030*/                   LDGSTS.E [R25], desc[UR16][R14.64] ;
"""


def test_a_kernel_that_takes_its_rows_apart_or_waits_for_each_load_is_found():
    good, bad, copies = machine_code.read_code(LISTING)
    assert (good.loads, good.stores, good.ahead) == ({16: 3}, {16: 1}, 48)
    assert (bad.loads, bad.stores, bad.ahead) == ({16: 1, 2: 1}, {8: 1, 4: 1}, 16)
    assert (copies.loads, copies.stores, copies.ahead) == ({16: 1, 8: 1, 4: 1}, {}, 24)
    assert (good.loops, bad.loops) == ([4.0], [])  # the loop around it is not innermost
    name = "forward_kernel<float, 4, 0>"
    good.registers = bad.registers = 64  # with 1,024 threads
    assert faults(name, good) == []
    assert [fault.partition("sm_90: ")[2] for fault in faults(name, bad)] == [
        "1 loads of less than 16 bytes, 0 are allowed",
        "2 stores of less than 16 bytes, 0 are allowed",
        "16384 bytes of loads under way, not 40960",
    ]
    assert faults("unknown_kernel<float, 4>", good)
    backward = "backward_kernel<float, 4, 0, false, 0>"
    assert faults(backward, good) == []
    good.loops.append(130.0)
    assert faults(backward, good) == [
        f"{backward}, sm_90: [4.0, 130.0] instructions for a row, at most 105 are allowed"
    ]
