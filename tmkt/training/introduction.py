"""Introduction of a run: the lines printed before it begins, and the record of its environment."""

import os
import platform
from typing import Any

import torch

import tmkt
from tmkt_kernels import backends

from ..config import Config
from ..data import RunData
from ..progress import count, say


def environment(device: torch.device) -> dict[str, Any]:
    """Return everything that a result depends on besides the configuration."""
    return {
        "tmkt": tmkt.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": _device_name(device),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "backends": {op: backends.choose(op, device.type, torch.float32, "auto") for op in ("lif", "mixup")},
    }


def introduction(
    config: Config, data: RunData, device: torch.device, parameters: int, batch: int, processes: int
) -> list[str]:
    """Return a line each for data, cameras, model, training, device, folder; `batch`: samples per optimiser step."""
    images = count(len(data.train.images), "image") if data.record["static_images"] else "no images"
    recordings = count(len(data.train.events), "recording") if len(data.train.events) else "no recordings"
    parts = f"{len(data.validation)} to validate, {len(data.test)} to test"
    width, height = config.data.size
    backend = backends.choose("lif", device.type, torch.float32, config.model.neuron.backend)
    threads = f", {count(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    together = f", {processes} processes" if processes > 1 else ""
    return [
        f"data:   {recordings} to train on, {parts}; {images}",
        *_camera(config),
        f"model:  {config.model.name}, {parameters:,} parameters; {len(data.classes)} classes, "
        f"{count(config.data.time_steps, 'time step')} of {width}x{height} pixels",
        f"method: {config.transfer.method}, {config.train.steps} optimiser steps of {batch} samples",
        f"device: {_device_name(device)}{threads}{together}; backend {backend}",
        f"out:    {config.out}",
    ]


def _camera(config: Config) -> list[str]:
    """Return a line for the simulated cameras, if there are any."""
    if config.simulated is None:
        return []
    place, share = config.simulated
    where = {
        "events": f"in place of {share:.0%} of the recordings",
        "images": f"in place of {share:.0%} of the images",
        "between": f"between image and recording of {share:.0%} of the pairs",
    }[place]
    camera, motion = (c if isinstance(c, str) else "of own ranges" for c in (config.data.camera, config.data.motion))
    return [f"camera: new simulated recordings in each step, {where}; camera {camera}, motion {motion}"]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def warn_of_copies(record: dict[str, Any]) -> None:
    """Report the number of recordings in two parts under two names, whose scores are not of unseen recordings."""
    contents = record["digests"]
    trained = set(contents["train"])
    for part in ("validation", "test"):
        copies = sum(digest in trained for digest in contents[part])
        if copies:
            say(
                f"warning: {copies} of the {len(contents[part])} {part} recordings are copies of training ones, or "
                "look the same to the network; `tmkt data check` names copies, `tmkt eval` counts them separately"
            )
