"""The pictures of a run: the samples that they show, and their words."""

import pytest
import torch
from matplotlib.text import Text

from tmkt.analysis import figures
from tmkt.analysis.example_batch import telling_rows
from tmkt.models import create_model
from tmkt.models.activity import layer_titles
from tmkt.training.evaluation import Score


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize(
    ("switch_steps", "expected"),
    [
        ([4, 4, 0, 4, 1, 2, 3], [1, 2, 3]),  # rows with only the image (4) or only events (0) say less
        ([4, 0, 2, 4], [0, 2, 4]),
        ([4, 4, 4, 4], [4, 4, 4]),
        ([0, 4, 0, 4], [0, 0, 4]),
        ([1, 1, 1, 3], [1, 1, 3]),
    ],
)
def test_rows_that_switch_are_shown_first(switch_steps, expected):
    rows = telling_rows(switch_steps, [0] * len(switch_steps), T=4, samples=3)
    assert len(set(rows)) == 3
    assert [switch_steps[row] for row in rows] == expected


def test_rows_show_many_classes():
    rows = telling_rows([1, 1, 2, 2, 3, 3], [5, 6, 5, 7, 5, 8], T=4, samples=3)
    assert rows == [0, 3, 5]


def test_a_mixed_batch_explains_its_colours_and_switches():
    images = torch.rand(4, 3, 1, 8, 8).expand(4, 3, 2, 8, 8)
    shown = words(figures.mixed_batch(images, torch.tensor([0, 2, 4]), ["a", "b", "c"]))
    for part in ("on event", "off event", "image step", "event step", "switch step", "step 3"):
        assert part in shown
    for part in ("class a\nevents only", "class b\nevents from step 2", "class c\nimage only"):
        assert part in shown


def test_accuracies_say_number_chance_and_interval():
    shown = words(figures.accuracy_bars({"ours": Score(30, 40, 1.0)}, "digits, seed 7", 10))
    for part in ("0.750", "chance", "0.1", "95 % Wilson over the 40 test recordings", "digits, seed 7"):
        assert part in shown


def test_learning_curves_have_a_title_and_a_range_of_their_own():
    records = [{"kind": "train", "step": 10, "ce_event": 2.0}, {"kind": "train", "step": 20, "ce_event": 1.0}]
    records += [{"kind": "validation", "step": step, "accuracy": value} for step, value in ((10, 0.7), (20, 0.8))]
    figure = figures.learning_curves({"ours": [records]}, "digits, seed 7")
    assert "digits, seed 7" in words(figure)
    low, high = figure.axes[1].get_ylim()
    assert 0.6 < low < 0.7
    assert 0.8 < high < 0.9


@pytest.mark.parametrize("label", [0, 1])
def test_a_raster_names_layers_and_tells_the_answer(label):
    model = create_model("small", num_classes=2, size=(8, 8), channels=(4, 8))
    model.heads["event"].bias.data = torch.tensor([100.0, 0.0])  # the network always answers class 0
    shown = words(figures.spike_raster(model, torch.rand(3, 1, 2, 8, 8), label, ("cat", "dog")))
    assert f"class {('cat', 'dog')[label]}, the network answers cat ({('right', 'wrong')[label]})" in shown
    for part in ("layer 1: conv 2→4 + LIF", "layer 2: conv 4→8 + LIF", "module before.0.bn", "time step"):
        assert part in shown


@pytest.mark.parametrize("name", ["vgg_snn", "scnn", "resnet19", "spikformer"])
def test_every_spiking_layer_has_a_title(name):
    titles = list(layer_titles(create_model(name, num_classes=2, size=(32, 32))).values())
    assert [title.partition(":")[0] for title in titles] == [f"layer {i + 1}" for i in range(len(titles))]
    assert all("LIF" in title for title in titles)
