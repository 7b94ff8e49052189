"""Compile the Triton kernels for an absent GPU, and print properties of the machine code as JSON.

    python compile_triton.py 90

The package's own launch functions run, with a stand-in for the CUDA driver, and every launch stops after compilation.
The variants, their specialisation and their options are therefore those of a real launch.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tmkt_kernels.ops.bn_lif import triton as bn_lif
from tmkt_kernels.ops.bn_lif.reference import BatchNorm
from tmkt_kernels.ops.camera import triton as camera
from tmkt_kernels.ops.camera.frames import Bins
from tmkt_kernels.ops.camera.scene import SENSOR_VALUES, Scene
from tmkt_kernels.ops.lif import triton as lif
from tmkt_kernels.ops.lif.recurrence import Recurrence, Reset
from tmkt_kernels.ops.mixup import triton as mixup
from tmkt_kernels.ops.mixup.reference import Selection
from tmkt_kernels.ops.scan_launch_triton import Layout
from tmkt_kernels.ops.scan_triton import scan_bwd_kernel, scan_fwd_kernel
from tmkt_kernels.surrogate import Surrogate

ARCH = int(sys.argv[1])
BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
last: Any = None  # the kernel of the last launch


class Driver:
    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", ARCH, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, run: Any = JITFunction.run, **kwargs: Any) -> None:
    global last
    last = run(self, *args, grid=grid, warmup=True, **kwargs)


def dump(option: str, cubin: Path) -> str:
    return subprocess.run([BIN / "cuobjdump", option, cubin], capture_output=True, text=True, check=True).stdout


def report(kernel: Any) -> dict[str, Any]:
    """Return registers, spills, global accesses as (ld or st, bytes), and counts of some instructions."""
    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(kernel.asm["cubin"])
        usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", dump("-res-usage", cubin)))
        sass = dump("-sass", cubin)
    accesses = re.findall(r"\b(ld|st)\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    widths = Counter(f"{kind}{int(lanes or 1) * int(bits) // 8}" for kind, lanes, bits in accesses)
    return {
        "registers": int(usage["REG"]),
        "spilled": int(usage["STACK"]) + int(usage["LOCAL"]) + len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "widths": dict(widths),
        "fma": len(re.findall(r"\bfma\.", ptx)) + len(re.findall(r"\bFFMA\b", sass)),
        # What IEEE 754 does not fix, in the PTX, since division takes FMAs in machine code.
        "inexact": len(re.findall(r"\bfma\.|\bdiv\.full|\.approx|\.ftz", ptx)),
        "asserts": ptx.count("__assertfail"),
    }


LIF_CASES = [
    *[(torch.float32, T, N) for T, N in ((4, 4096), (8, 4096), (16, 4096), (40, 4096), (40, 4097))],
    *[(torch.bfloat16, T, N) for T, N in ((16, 4096), (40, 4096), (40, 4097))],
    (torch.float16, 16, 4096),
]


def lif_cases() -> dict[str, Any]:
    """Compile each dtype and chunk size, aligned and odd rows, few and all flags, shared and separate parameters."""
    rows = {}
    hard, soft = Recurrence.lif(), Recurrence.lif(v_reset=None, surrogate="sigmoid", detach_reset=False)
    own = torch.empty(5, 64)
    for dtype, T, N in LIF_CASES:
        x, v = torch.empty(T, N, dtype=dtype), torch.empty(N)
        name = f"{str(dtype)[6:]}-T{T}-{'odd' if N % 2 else 'aligned'}"
        lif.lif_fwd(x, None, hard, 1, False)
        rows[f"lif_fwd-{name}-spikes"] = report(last)
        lif.lif_fwd(x, v, soft, 1, True)
        rows[f"lif_fwd-{name}-all"] = report(last)
        lif.lif_bwd((x, None, None), x, None, hard, 1, False)
        rows[f"lif_bwd-{name}-spikes"] = report(last)
        lif.lif_bwd((x, v, x), x, v, soft, 1, False)
        rows[f"lif_bwd-{name}-all"] = report(last)
    x = torch.empty(4, 4096)
    for surrogate in Surrogate:
        neuron = Recurrence.lif(v_reset=None)._replace(surrogate=int(surrogate), detach_reset=False)
        lif.lif_bwd((x, None, None), x, None, neuron, 1, False)
        rows[f"lif_bwd-float32-T4-aligned-soft-{surrogate.name}"] = report(last)
    x = torch.empty(16, 4096)
    for reset in Reset:
        neuron = hard._replace(reset=int(reset), coefficients=own)
        lif.lif_fwd(x, None, neuron, 64, False)
        rows[f"lif_fwd-own-{reset.name}"] = report(last)
        for need in (False, True):
            lif.lif_bwd((x, None, None), x, None, neuron, 64, need)
            rows[f"lif_bwd-own-{reset.name}-{'learned' if need else 'fixed'}"] = report(last)
    x, neuron = torch.empty(40, 4096), soft._replace(coefficients=own)
    lif.lif_bwd((x, None, None), x, None, neuron, 64, True)
    rows["lif_bwd-own-SOFT-chunks-learned"] = report(last)
    return rows


def bn_lif_cases() -> dict[str, Any]:
    """Compile training and evaluation, each dtype, few and all flags, long and short T."""
    rows = {}
    hard, soft = Recurrence.lif(), Recurrence.lif(v_reset=None, surrogate="sigmoid", detach_reset=False)
    mean = torch.empty(64)
    for dtype, T, N in ((torch.float32, 4, 4096), (torch.float32, 40, 4096), (torch.bfloat16, 16, 4096)):
        x, v = torch.empty(T, 1, N, dtype=dtype), torch.empty(1, N)
        name = f"{str(dtype)[6:]}-T{T}-aligned"
        layout, norm = Layout(64, 64), BatchNorm(mean, mean, mean, mean, 1e-5)
        bn_lif.statistics(x, 64, 64)
        rows[f"bn_moments-{name}"] = report(last)
        bn_lif.bn_lif_fwd(x, None, norm, hard, layout, False)
        rows[f"bn_lif_fwd-{name}-spikes"] = report(last)
        bn_lif.bn_lif_fwd(x, v, norm, soft, layout, True)
        rows[f"bn_lif_fwd-{name}-all"] = report(last)
        bn_lif.bn_lif_bwd((x, None, None), x, None, norm, hard, layout, False)
        rows[f"bn_lif_bwd-{name}-spikes"] = report(last)
        bn_lif.bn_lif_bwd((x, v, x), x, v, norm, soft, layout, False)
        rows[f"bn_lif_bwd-{name}-all"] = report(last)
        bn_lif.bn_lif_bwd((x, None, None), x, None, norm, hard, layout, True)
        rows[f"bn_lif_bwd-{name}-statistics"] = report(last)  # the second pass
        image, grad, pool = x.view(T, 1, 64, 8, 8), torch.empty(T, 1, 64, 4, 4, dtype=dtype), Layout(64, 64, 8)
        bn_lif.bn_lif_fwd(image, None, norm, hard, pool, False)
        rows[f"bn_lif_fwd-{str(dtype)[6:]}-T{T}-pooled"] = report(last)
        bn_lif.bn_lif_bwd((grad, None, None), image, None, norm, hard, pool, False)
        rows[f"bn_lif_bwd-{str(dtype)[6:]}-T{T}-pooled"] = report(last)
    return rows


def mixup_cases() -> dict[str, Any]:
    rows = {}
    switch_step = torch.zeros(2, dtype=torch.int64)
    for size, index, dtypes in (
        (32, switch_step, (torch.uint8, torch.int16, torch.float32)),
        (32, switch_step, (torch.uint8, torch.uint8, torch.bfloat16)),
        (32, switch_step, (torch.bfloat16, torch.float16, torch.float16)),
        (32, switch_step, (torch.float32, torch.float32, torch.float32)),
        (5, None, (torch.float32, torch.float32, torch.float32)),
    ):
        static = torch.empty(2, 1, size, size, dtype=dtypes[0])
        events = torch.empty(3, 2, 2, size, size, dtype=dtypes[1])
        selection = Selection(switch_step, index, index, 1.0, 1.0)
        name = "-".join(str(d)[6:] for d in dtypes) + ("-odd" if index is None else "-aligned")
        mixup.mixup_fwd(static, events, selection, dtypes[2])
        rows[f"mixup_fwd-{name}"] = report(last)
        if not (dtypes[0].is_floating_point and dtypes[1].is_floating_point):
            continue
        grad = torch.empty(3, 2, 2, size, size, dtype=dtypes[2])
        for needs in ((True, False), (False, True)):
            mixup.mixup_bwd(grad, static, events, selection, *needs)
            rows[f"mixup_bwd-{name}-{'static' if needs[0] else 'events'}"] = report(last)
    return rows


def compile_camera(B: int, S: int, T: int, sensor: tuple[int, int], size: tuple[int, int] | None) -> None:
    """Launch with arguments of these sizes, (width, height); without `size`, frames have the sensor's."""
    width, height = sensor
    times, shares = torch.empty(B, S, 3, dtype=torch.int32), torch.empty(B, S, 3)
    n_steps, values, seeds = torch.empty(B, dtype=torch.int32), torch.empty(B, SENSOR_VALUES), torch.empty(B).long()
    scene = Scene(torch.empty(B, height + 3, width + 2), times, shares, n_steps, values, seeds, width, height)
    tables = [None, None] if size is None else [torch.empty(n, 3, dtype=torch.int32) for n in sensor]
    camera.camera_frames(scene, Bins(torch.empty(B, T, dtype=torch.int32), *tables, *(size or sensor)))


def camera_cases() -> dict[str, Any]:
    rows = {}
    for name, size in (("counts", None), ("resized", (28, 20))):
        compile_camera(2, 50, 10, (34, 34), size)
        rows[f"camera_frames-{name}"] = report(last)
    return rows


def variants() -> dict[str, int]:
    """Return the number of variants of each kernel that are compiled over many sizes, all else being equal."""
    kernels = (scan_fwd_kernel, scan_bwd_kernel, mixup.mixup_fwd_kernel)
    kernels = (*kernels, mixup.mixup_bwd_static_kernel, mixup.mixup_bwd_events_kernel)
    kernels = (*kernels, camera.camera_frames_kernel)
    for kernel in kernels:
        kernel.device_caches.clear()
    for T in (17, 20, 32, 100):
        for N in (1, 2, 3, 4, 5, 16, 100, 4096, 4097, 65536):
            x, neuron = torch.empty(T, N), Recurrence.lif()
            lif.lif_fwd(x, None, neuron, 1, False)
            lif.lif_bwd((x, None, None), x, None, neuron, 1, False)
    for T, B, C, size in ((1, 1, 1, 1), (1, 2, 3, 4), (4, 16, 2, 16), (5, 3, 2, 5), (16, 1, 1, 7)):
        selection = Selection(torch.zeros(B, dtype=torch.int64), None, None, 1.0, 1.0)
        static = torch.empty(B, 1, size, size)
        events = torch.empty(T, B, C, size, size)
        mixed = mixup.mixup_fwd(static, events, selection, torch.float32)
        mixup.mixup_bwd(mixed, static, events, selection, True, True)
    for B, S, T, sensor in ((1, 1, 1, (1, 1)), (1, 2, 3, (4, 1)), (4, 16, 16, (16, 16)), (5, 33, 2, (7, 5))):
        for size in (None, (1, 1), (16, 3)):
            compile_camera(B, S, T, sensor, size)
    return {kernel.fn.__name__: len(kernel.device_caches[0][0]) for kernel in kernels}


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET", "0") != "1"
    driver.set_active(Driver())
    JITFunction.run = compile_only
    print(
        json.dumps(
            {
                "triton": triton.__version__,
                "rows": lif_cases() | bn_lif_cases() | mixup_cases() | camera_cases(),
                "variants": variants(),
            }
        )
    )
