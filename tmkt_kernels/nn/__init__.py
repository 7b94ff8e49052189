"""Layers built on the fused operators. They map x_seq [T, B, ...] to spikes of the same shape."""

from .batch_norm import BatchNormLIF, BatchNormLIF1d, BatchNormLIF2d
from .conversion import convert, fuse_conv
from .mixup import TimeStepMixup
from .neurons import IF, LIF, Leaky, MultiStepNeuron, ParametricLIF
from .per_step import PerStep
from .sync_batch_norm import SyncBatchNorm, SyncBatchNormLIF, convert_sync_batchnorm

__all__ = [
    "IF",
    "LIF",
    "BatchNormLIF1d",
    "BatchNormLIF2d",
    "Leaky",
    "ParametricLIF",
    "PerStep",
    "SyncBatchNorm",
    "SyncBatchNormLIF",
    "TimeStepMixup",
    "convert",
    "convert_sync_batchnorm",
    "fuse_conv",
]

SPIKING_LAYERS = (MultiStepNeuron, BatchNormLIF)
"""Types of the layers here that return spikes."""
