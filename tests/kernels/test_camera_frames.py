"""Frames of the simulated camera against `to_frames` of the same recordings' events."""

import numpy as np
import pytest
import torch

from tmkt_kernels import events as ev
from tmkt_kernels.ops.camera.functional import simulate_frames
from tmkt_kernels.ops.camera.motion import Motion
from tmkt_kernels.ops.camera.recording import record
from tmkt_kernels.ops.camera.scene import moving_images
from tmkt_kernels.ops.camera.sensor import Camera, SensorModel

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")


@pytest.mark.parametrize("size", [None, (34, 30), (24, 24), (48, 50), (1, 1)], ids=str)
def test_frames_equal_those_of_the_recorded_events(size):
    sensor = (34, 30)
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    motion, camera, seeds = Motion.saccades(2), Camera.of(SensorModel(), 2), torch.tensor([5, -6])
    frames = simulate_frames(
        images, None, motion, camera, 7, size, sensor_size=sensor, seed=seeds, backend="reference"
    ).numpy()
    for b in range(2):
        one = slice(b, b + 1)
        scene = moving_images(images[one, 0] / 255, motion[one], camera[one], sensor, seeds[one])
        events = record(scene, ev.EVENT_DTYPE, backend="reference")
        assert len(events) > 1000
        span = (0, int(motion.duration_us()[b]))
        expected = ev.to_frames(events, 7, sensor, size, span=span)
        assert expected.dtype == frames.dtype
        assert np.array_equal(frames[:, b], expected)
