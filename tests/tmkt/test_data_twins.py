"""The image that a recording shows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tmkt.config import StaticConfig
from tmkt.data.sources.events import Recording
from tmkt.data.sources.images import StaticSource
from tmkt.data.twins import known_twins, shown_image
from tmkt.errors import UserError

NMNIST = StaticConfig(source="MNIST", exclude_twins="nmnist")
NAME = StaticConfig(source="folder", exclude_twins="name")


def images(files=None):
    """Two cats and a dog."""
    return StaticSource(np.array([0, 0, 1]), ("cat", "dog"), lambda _: torch.zeros(1, 8, 8), files)


def test_a_recording_of_nmnist_shows_the_image_before_its_number():
    assert shown_image(Recording(1, "dog/00003", 0), images(), NMNIST) == 2
    assert shown_image(Recording(1, "dog/00009", 0), images(), NMNIST) == 8  # beyond the data set


@pytest.mark.parametrize("name", ["a", "00000", "-1"])
def test_nmnist_needs_numbers(name):
    with pytest.raises(UserError, match=f"recording cat/{name}: exclude_twins: nmnist needs ids that are numbers"):
        shown_image(Recording(0, f"cat/{name}", 0), images(), NMNIST)


def test_a_simulated_recording_shows_its_image_whatever_the_rule():
    recording = Recording(0, "cat/1", 1, image=1)
    assert [shown_image(recording, images(), rule) for rule in (StaticConfig(), NMNIST, NAME)] == [1, 1, 1]


def test_names_are_those_of_the_class():
    source = images([Path(f"{name}.png") for name in ("cat/a", "cat/b", "dog/a")])
    names = ((0, "cat/a"), (1, "dog/a"), (1, "dog/b"))
    assert [shown_image(Recording(label, name, 0), source, NAME) for label, name in names] == [0, 2, None]
    with pytest.raises(UserError, match="name needs images with file names"):
        shown_image(Recording(0, "cat/a", 0), images(), NAME)


def test_a_twin_of_another_class_is_an_error():
    assert known_twins([Recording(1, "dog/3", 0), Recording(0, "cat/1", 1)], images(), NMNIST).tolist() == [2, 0]
    with pytest.raises(UserError, match=r"recording dog/1: shows image 1 of its class, which the static set has as 'c"):
        known_twins([Recording(1, "dog/1", 0)], images(), NMNIST)
    with pytest.raises(UserError, match="the static set lacks it"):
        known_twins([Recording(1, "dog/9", 0)], images(), NMNIST)
