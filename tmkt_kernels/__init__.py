"""Fused operators for spiking neural networks, and layers on them. See README.md and `python -m tmkt_kernels`."""

from . import events, nn
from .bn_lif import bn_lif
from .compat import accelerate, restore
from .lif import lif
from .lif.leaky import leaky
from .mixup import time_step_mixup

__version__ = "0.1.0"
__all__ = ["accelerate", "bn_lif", "events", "leaky", "lif", "nn", "restore", "time_step_mixup"]
