"""Event-camera recordings: read, write, bin to frames, simulate.

A recording is a numpy structured array with the fields x, y (pixels, origin at the top left), t
(microseconds) and p (polarity: True where the pixel became brighter), in order of time. This is tonic's
convention, so that tonic's transforms accept these recordings, and these functions those of tonic's datasets.
The loops run in C++ (csrc/events, and csrc/camera for the simulator) and release the GIL. docs/simulator.md describes
the simulator.
"""

from ..ops.camera.motion import N_MNIST_PATH
from ..ops.camera.sensor import SensorModel
from .arrays import EVENT_DTYPE, as_events
from .files import (
    DamagedRecordingError,
    RecordedEvents,
    read_aedat,
    read_bin,
    read_dat,
    read_raw,
    write_bin,
    write_evt3,
    write_npz,
)
from .frames import to_frames
from .simulation import (
    SIMULATOR_VERSION,
    simulate_drift,
    simulate_recording,
    simulate_saccades,
    simulate_video,
)

__all__ = [
    "EVENT_DTYPE",
    "N_MNIST_PATH",
    "SIMULATOR_VERSION",
    "DamagedRecordingError",
    "RecordedEvents",
    "SensorModel",
    "as_events",
    "read_aedat",
    "read_bin",
    "read_dat",
    "read_raw",
    "simulate_drift",
    "simulate_recording",
    "simulate_saccades",
    "simulate_video",
    "to_frames",
    "write_bin",
    "write_evt3",
    "write_npz",
]
