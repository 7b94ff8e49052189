"""Settings that must hold before the package is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is decorated, that is on import

torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN: an output not fully written shows
