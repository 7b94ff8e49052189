"""The teacher of `ckd` (after arXiv 2507.09269): an image network, whose knowledge of the static images is distilled.

No weights are downloaded. It is trained from scratch on the run's own static images (the V channel, in all three input
channels) before the spiking network, with all randomness drawn from the run's seed.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from .. import tensor_files
from ..config import Config
from ..data import PairedData
from ..data.augment import Augmentation, Blend, crop
from ..errors import DamagedError, UserError
from ..models.finite import check_finite
from ..progress import say, track

PREDICT_BATCH = 256


class Targets(NamedTuple):
    """The teacher's logits [N, K] and pooled features [N, D] of N static images."""

    logits: Tensor
    features: Tensor

    def at(self, index: Tensor) -> "Targets":
        """Return the targets of images `index` int64 [B]."""
        return Targets(self.logits[index], self.features[index])

    def mixed(self, blend: Blend, temperature: float) -> "Targets":
        """Mix the targets of n samples and their N partners: the softmax at a temperature, and the features."""
        probabilities = blend.values(F.softmax(self.logits / temperature, dim=1))
        logits = temperature * probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
        return Targets(logits, blend.values(self.features))

    def to(self, device: torch.device | str) -> "Targets":
        return Targets(self.logits.to(device), self.features.to(device))


def teacher_targets(config: Config, data: PairedData, path: Path, run: str = "") -> Targets:
    """Return targets of every static image of `data`, from the safetensors file at `path`, which is made if missing.

    The file appears complete or not at all; a run killed before that trains the same teacher again. `run`: the identity
    of the run, which the file must name.

    Raises:
        UserError: the file is damaged or another run's, or the teacher holds NaN or infinity.
    """
    if not path.exists():
        teacher = train_teacher(config, data)
        targets = _predict(teacher, data.images)
        tensors = {**targets._asdict(), **{f"teacher.{name}": value for name, value in teacher.state_dict().items()}}
        check_finite(tensors, "teacher", "lower transfer.teacher.lr")
        tensor_files.write_tensors(path, tensors, run)
        right = targets.logits.argmax(1).cpu() == _image_labels(data)
        say(f"teacher: accuracy {right.float().mean():.3f} on its own {len(right)} training images")
    return _read_targets(path, data, run).to(data.images.device)


def _read_targets(path: Path, data: PairedData, run: str) -> Targets:
    try:
        saved, writer = tensor_files.read_tensors(path)
        if writer != run:
            raise DamagedError(f"{path.name} is of another run")
        targets = Targets(*(saved.get(name, torch.empty(0)) for name in Targets._fields))
        sizes = (len(data.images), data.num_classes), (len(data.images), *targets.features.shape[1:2])
        if any(t.dtype != torch.float32 or t.shape != size for t, size in zip(targets, sizes, strict=True)):
            raise DamagedError(f"{path.name} lacks the targets of {len(data.images)} images")
        check_finite(saved, path.name, "no run should have written that")
    except UserError as error:
        raise UserError(f"out: {path}: {error}; delete it, and the same command trains the teacher anew") from error
    return targets


def train_teacher(config: Config, data: PairedData) -> nn.Sequential:
    """Train Sequential(body, linear head) on the static images of `data`, on their device: AdamW, cosine to zero."""
    settings, device = config.transfer.teacher, data.images.device
    teacher = build_teacher(settings.name, data.num_classes, config.seed).to(device)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=settings.lr, weight_decay=config.train.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    generator = torch.Generator().manual_seed(config.seed)
    augmentation = Augmentation.of(config.data)
    labels = _image_labels(data)
    for _ in track(range(settings.steps), "teacher"):
        index = torch.randint(len(labels), (settings.batch,), generator=generator)
        offset = augmentation.draw_offset(settings.batch, generator)
        images = crop(_as_input(data.images[index.to(device)])[None], offset)[0]
        loss = F.cross_entropy(teacher(images), labels[index].to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return teacher


def build_teacher(name: str, num_classes: int, seed: int) -> nn.Sequential:
    """Build a torchvision network with weights drawn from `seed`: Sequential(body -> [B, D], head -> [B, K])."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = torchvision.models.get_model(name, weights=None)
        head = nn.Linear(body.fc.in_features, num_classes)
    body.fc = nn.Identity()
    return nn.Sequential(body, head)


@torch.no_grad()
def _predict(teacher: nn.Sequential, images: Tensor) -> Targets:
    teacher.eval()
    features = torch.cat([teacher[0](_as_input(part)) for part in torch.split(images, PREDICT_BATCH)])
    return Targets(teacher[1](features), features)


def _as_input(images: Tensor) -> Tensor:
    """uint8 [B, 1 or 3, H, W] -> float32 [B, 3, H, W] in [-1, 1]."""
    return (images.float() / 127.5 - 1).expand(-1, 3, -1, -1)


def _image_labels(data: PairedData) -> Tensor:
    """int64 [N] on the CPU, from the index that groups images by class."""
    by_class = data.static_by_class
    labels = torch.empty_like(by_class.order)
    labels[by_class.order] = torch.repeat_interleave(torch.arange(data.num_classes), by_class.size)
    return labels
