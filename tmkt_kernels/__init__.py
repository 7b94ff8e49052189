"""Fused operators for spiking neural networks, and layers built on them. See README.md and `python -m tmkt_kernels`."""

from . import events, nn
from .compat import accelerate, restore
from .ops.bn_lif.functional import bn_lif
from .ops.camera.functional import simulate_frames
from .ops.camera.motion import Motion
from .ops.camera.sensor import Camera
from .ops.lif.functional import lif
from .ops.lif.leaky import leaky
from .ops.mixup.functional import time_step_mixup

__version__ = "0.1.0"
__all__ = [
    "Camera",
    "Motion",
    "accelerate",
    "bn_lif",
    "events",
    "leaky",
    "lif",
    "nn",
    "restore",
    "simulate_frames",
    "time_step_mixup",
]
