"""Draws docs/images/from_images.gif: a photograph moves in front of three simulated cameras. Needs no data.

python docs/from_images_figure.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from tmkt_kernels import Camera, Motion, simulate_frames
from tmkt_kernels.events import SensorModel

OUT = Path(__file__).parent / "images" / "from_images.gif"
SIZE, T, MARGIN = (160, 106), 30, 4
ON, OFF, PAPER = np.array([33, 102, 172]), np.array([178, 24, 43]), np.array([247, 247, 247])


def coloured(off: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Counts [H, W] of each polarity -> uint8 [H, W, 3]: blue where on events prevail, red where off events do."""
    difference = np.clip((on.astype(int) - off.astype(int)) / 2, -1, 1)[..., None]
    return (PAPER + np.abs(difference) * (np.where(difference > 0, ON, OFF) - PAPER)).astype(np.uint8)


def main() -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg")).convert("L").resize(SIZE, Image.Resampling.BOX)
    images = torch.from_numpy(np.array(photo))[None, None]
    generator = torch.Generator().manual_seed(4)
    path = Motion.handheld(1, amplitude=4.0, duration_us=600_000, generator=generator)
    sensors = {
        "N-MNIST's camera": SensorModel(),
        "low thresholds": SensorModel(threshold=0.12, latency_us=1_000),
        "noisy": SensorModel(noise_rate=2.5, noise_on_share=0.7, hot_share=0.002, hot_rate=60.0),
    }
    frames = torch.cat(
        [simulate_frames(images, None, path, Camera.of(sensor, 1), T, seed=0) for sensor in sensors.values()], dim=1
    ).numpy()
    width, height = SIZE
    pages = []
    for t in range(T):
        page = Image.new("RGB", (4 * width + 5 * MARGIN, height + 2 * MARGIN + 14), "white")
        draw = ImageDraw.Draw(page)
        panels = {"the photograph": np.array(photo.convert("RGB"))}
        panels |= {name: coloured(*frames[t, k]) for k, name in enumerate(sensors)}
        for column, (name, panel) in enumerate(panels.items()):
            left = MARGIN + column * (width + MARGIN)
            draw.text((left, 2), name, fill="black")
            page.paste(Image.fromarray(panel), (left, 14 + MARGIN))
        pages.append(page.quantize(64))
    pages[0].save(OUT, save_all=True, append_images=pages[1:], duration=80, loop=0, optimize=True)
    print(f"{OUT.name}: {frames.sum((0, 2, 3, 4)).tolist()} events in 0.6 s")


if __name__ == "__main__":
    main()
