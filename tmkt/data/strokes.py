"""Pen strokes as event recordings: Omniglot's drawings, rewritten in front of a simulated camera.

N-Omniglot (Li et al. 2022) showed videos of the strokes to an event camera. These recordings are simulated. Their
duration, pen and ink are chosen, because no recording of N-Omniglot was at hand.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tmkt_kernels import events as ev

from ..errors import UserError

STROKES = (".txt",)
_PAPER = 105  # Omniglot's drawings are 105 x 105, y pointing up from -105 to 0
# At N-MNIST's 0.35 background events most events would be noise, because little ink moves at a time.
_SENSOR = ev.SensorModel(noise_rate=0.1)
_FINE = 4  # oversampling: pictures are drawn this much finer, then averaged


def read_strokes(path: str | Path) -> list[np.ndarray]:
    """Read the strokes of one drawing, each float [N, 3] of x, y (y pointing down, both 0 to 105) and time in ms.

    Lines `x,y,t`; START begins the file and BREAK ends a stroke. Raises UserError, naming the first other line.
    """
    strokes: list[list[tuple[float, float, float]]] = [[]]
    for number, line in enumerate(Path(path).read_text(encoding="ascii").split(), 1):
        if line == "BREAK":
            strokes.append([])
        elif line != "START":
            try:
                x, y, t = map(float, line.split(","))
            except ValueError as error:
                raise UserError(f"strokes {path}: line {number}: expected x,y,t, got {line!r}") from error
            strokes[-1].append((x, -y, t))
    drawing = [np.array(stroke) for stroke in strokes if stroke]
    if not drawing:
        raise UserError(f"strokes {path}: holds no stroke; fetch it again")
    return drawing


def render_strokes(strokes: list[np.ndarray], size: tuple[int, int], frames: int = 100, pen: float = 4.8) -> np.ndarray:
    """Render the drawing while it is written: uint8 [frames, height, width], black ink on white paper, the first blank.

    The paper fills the shorter side of `size` (width, height). `pen` is the pen's width for a paper of 105; with the
    default, the ink matches that of Omniglot's images, as found on 20 of them.
    """
    width, height = size
    scale = min(size) / _PAPER * _FINE
    shift = np.array([width * _FINE, height * _FINE]) / 2 - _PAPER / 2 * scale
    picture = Image.new("L", (width * _FINE, height * _FINE), 255)
    draw = ImageDraw.Draw(picture)
    # Segments in order of their end; a stroke of one point is a dot.
    segments = [pair for s in strokes for pair in (pairwise(s) if len(s) > 1 else [(s[0], s[0])])]
    segments.sort(key=lambda pair: float(pair[1][2]))
    first, last = min(s[0, 2] for s in strokes), segments[-1][1][2]
    radius = pen * scale / 2
    video, done = np.empty((frames, height, width), np.uint8), 0
    for k in range(frames):
        now = first + (last - first) * k / (frames - 1)
        while k > 0 and done < len(segments) and segments[done][1][2] <= now:
            ends = [tuple(point[:2] * scale + shift) for point in segments[done]]
            draw.line([xy for end in ends for xy in end], fill=0, width=round(2 * radius))
            for x, y in ends:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
            done += 1
        video[k] = np.asarray(picture.reduce(_FINE))
    return video


def simulate_strokes(
    path: str | Path, *, sensor_size: tuple[int, int] = (64, 64), duration_us: int = 1_000_000, seed: int
) -> np.ndarray:
    """Simulate a recording of a drawing being written, with its real pace stretched to `duration_us`.

    Returns events as `tmkt_kernels.events.simulate_video`, whose sensor it uses.
    """
    video = render_strokes(read_strokes(path), sensor_size)
    return ev.simulate_video(video, np.linspace(0, duration_us, len(video)), sensor=_SENSOR, seed=seed)
