"""Each operator and backend once, forward and backward, on a small odd shape, against the reference: `python -m
benchmarks.smoke [--device cuda]`. For compute-sanitizer; TRITON_INTERPRET=1 has the Triton kernels run on the CPU.
"""

import argparse

import torch

from benchmarks.case import HALVES
from benchmarks.cases import bn_lif, lif, mixup

CASES = (lif.CASES[1], *bn_lif.CASES, *mixup.CASES)
SHAPE = (5, 3, 7, 6, 10)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoke", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    torch.manual_seed(0)
    for case in CASES:
        for dtype in HALVES[:2]:
            inputs = case.inputs(device, dtype, SHAPE)
            expected = case.expected(inputs)
            for name, contestant in case.contestants(device, dtype, SHAPE).items():
                if contestant.ours and contestant.check:
                    contestant.check(contestant.run(inputs), expected)
                    print(f"{case.op} {case.name} {dtype}, {name}: as the reference")
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
