"""Mixes of two samples: CutMix, EventMix and time-step mixup of two recordings."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import AugmentConfig
from .geometry import spans

GAUSSIANS = 4  # of a mixture, at most
LEVELS = 2**17  # a product of three whole numbers up to this, summed over a mixture, is exact in float64
PROBES = 64  # cells whose density gives the threshold of a mixture


class Region(NamedTuple):
    """The cells of each of B samples where sum_g t[g] y[g] x[g] > threshold.

    t [B, G, T], y [B, G, H] and x [B, G, W] are whole numbers in float64, and so is threshold [B], so that the cells
    are the same on every device.
    """

    t: Tensor
    y: Tensor
    x: Tensor
    threshold: Tensor

    def mask(self, rows: Tensor, device: torch.device) -> Tensor:
        """Return the cells of N of the samples, bool [N, T, H, W] on `device`."""
        t, y, x, threshold = (values[rows].to(device) for values in self)
        planes = (t[..., None] * y[:, :, None]).flatten(2)  # [N, G, T H]
        density = (planes.mT @ x).view(len(rows), t.shape[2], y.shape[2], x.shape[2])
        return density > threshold.view(-1, 1, 1, 1)


class Mix(NamedTuple):
    """The mixes of B samples, each with a partner of its own.

    used: bool [B], the samples that are mixed. same_class: bool [B], those whose partner must be of their class.
    region: the cells from the partner. mixes_labels: whether samples may have more than one class.
    """

    used: Tensor
    same_class: Tensor
    region: Region
    mixes_labels: bool

    @staticmethod
    def draw(
        config: AugmentConfig, batch: int, shape: tuple[int, int, int], generator: torch.Generator
    ) -> "Mix | None":
        """Draw a mix for each of `batch` samples of shape (T, H, W), on the CPU; None where the settings have none."""
        shares = torch.tensor([config.cutmix, config.event_mix, config.time_mix], dtype=torch.float64)
        if not shares.any():
            return None
        chance = torch.rand(batch, dtype=torch.float64, generator=generator)
        kind = torch.bucketize(chance, shares.cumsum(0), right=True)  # 3: not mixed
        t, y, x = (torch.zeros(batch, GAUSSIANS, size, dtype=torch.float64) for size in shape)
        region = Region(t, y, x, torch.zeros(batch, dtype=torch.float64))
        for number, share in enumerate(shares.tolist()):
            if share > 0:
                rows = kind == number
                for value, drawn in zip(region, REGIONS[number](batch, shape, generator), strict=True):
                    value[rows] = drawn[rows]
        same_class = (kind == 2) & (config.time_mix_with == "class")
        return Mix(kind < 3, same_class, region, config.mixes_labels)

    def share(self, part: slice) -> "Mix":
        """Return those of some of the samples."""
        t, y, x, threshold = (values[part] for values in self.region)
        region = Region(t, y, x, threshold)
        return Mix(self.used[part], self.same_class[part], region, self.mixes_labels)

    def blend(self, device: torch.device) -> "Blend":
        """Return the cells themselves, on `device`."""
        rows = self.used.nonzero()[:, 0]
        return Blend(len(self.used), rows.to(device), self.region.mask(rows, device), self.mixes_labels)


class Blend(NamedTuple):
    """What n samples take from partners. It joins values of n + N samples: the n, then the N partners.

    rows: int64 [N], the samples that have one, in order. mask: bool [N, T, H, W], the cells that they take from it.
    mixes_labels: as of `Mix`.
    """

    n: int
    rows: Tensor
    mask: Tensor
    mixes_labels: bool

    @property
    def share(self) -> Tensor:
        """The partner's share of the cells, float32 [N]."""
        return self.mask.sum((1, 2, 3)) / math.prod(self.mask.shape[1:])

    def sequences(self, x_seq: Tensor) -> Tensor:
        """[T, n + N, C, H, W] -> [T, n, C, H, W]."""
        own, partner = x_seq[:, : self.n], x_seq[:, self.n :]
        mask = self.mask.transpose(0, 1)[:, :, None]
        return own.index_copy(1, self.rows, torch.where(mask, partner, own[:, self.rows]))

    def values(self, values: Tensor) -> Tensor:
        """Interpolate values [n + N, D], such as probabilities, by the partner's share -> [n, D]."""
        return self._interpolate(values, self.share[:, None])

    def labels(self, label: Tensor, num_classes: int) -> Tensor:
        """Classes int64 [n + N] -> shares of the classes, float32 [n, K], or where labels do not mix int64 [n]."""
        if not self.mixes_labels:
            return label[: self.n]
        return self.values(F.one_hot(label, num_classes).float())

    def step_values(self, values: Tensor) -> Tensor:
        """Interpolate values [T, n + N] by the partner's share of the cells of each step -> [T, n]."""
        height, width = self.mask.shape[2:]
        return self._interpolate(values.T, self.mask.sum((2, 3)) / (height * width)).T

    def _interpolate(self, values: Tensor, share: Tensor) -> Tensor:
        own, partner = values[: self.n], values[self.n :]
        before = own[self.rows]
        return own.index_copy(0, self.rows, before + share * (partner - before))


def _box(batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> Region:
    """CutMix (Yun et al., ICCV 2019, arXiv 1905.04899): a box of all steps, whose area is a share from Beta(1, 1).

    Its centre is uniform, and what lies beyond the edges is cut off, as theirs.
    """
    T, *sides = shape
    length = torch.rand(batch, dtype=torch.float64, generator=generator).sqrt()
    edges = []
    for side in sides:
        cut = (side * length).long()
        first = torch.randint(side, (batch,), generator=generator) - cut // 2
        edges.append(spans(first.clamp(min=0), (first + cut).clamp(max=side), side))
    return _of_one(torch.ones(batch, T, dtype=torch.bool), *edges)


def _mixture(batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> Region:
    """EventMix (Shen et al. 2022, arXiv 2205.11708): the cells of largest density in a mixture of Gaussians.

    Theirs: two to four Gaussians of weight U(0, 1), means uniform in the cells, standard deviations max(0.1, U(0, 1)) /
    2 of T, H and W, and a threshold for the densest cells to be a share from Beta(1, 1). Chosen: that threshold is a
    quantile of 64 random cells, and the label mixes by the share of the cells, rather than by the events in them, so
    that both streams have one label.
    """
    number = torch.randint(2, GAUSSIANS + 1, (batch,), generator=generator)
    weight = torch.rand(batch, GAUSSIANS, dtype=torch.float64, generator=generator)
    weight = weight * (torch.arange(GAUSSIANS) < number[:, None])
    profiles, cells = [], []
    for size in shape:
        mean = torch.randint(size, (batch, GAUSSIANS, 1), generator=generator)
        spread = torch.rand(batch, GAUSSIANS, 1, dtype=torch.float64, generator=generator).clamp(min=0.1) * size / 2
        profiles.append(torch.exp(-(((torch.arange(size) - mean) / spread) ** 2) / 2))
        cells.append(torch.randint(size, (batch, 1, PROBES), generator=generator).expand(-1, GAUSSIANS, -1))
    profiles[0] = profiles[0] * weight[..., None]
    t, y, x = (profile.mul(LEVELS).round() for profile in profiles)
    density = t.gather(2, cells[0]) * y.gather(2, cells[1]) * x.gather(2, cells[2])
    quantile = torch.randint(PROBES, (batch, 1), generator=generator)
    threshold = density.sum(1).sort(1).values.gather(1, quantile)[:, 0]
    return Region(t, y, x, threshold)


def _beginning(batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> Region:
    """The steps before a switch step that is uniform in 1 .. T - 1, as a time-step mixup of two recordings."""
    T, *sides = shape
    switch = torch.randint(1, T, (batch,), generator=generator)
    return _of_one(spans(torch.zeros_like(switch), switch, T), *(torch.ones(batch, s, dtype=torch.bool) for s in sides))


def _of_one(t: Tensor, y: Tensor, x: Tensor) -> Region:
    """Return a region that is the product of steps, rows and columns, bool [B, size] each."""
    t, y, x = (F.pad(values[:, None].double(), (0, 0, 0, GAUSSIANS - 1)) for values in (t, y, x))
    return Region(t, y, x, torch.zeros(len(t), dtype=torch.float64))


REGIONS: tuple[Callable[[int, tuple[int, int, int], torch.Generator], Region], ...] = (_box, _mixture, _beginning)
