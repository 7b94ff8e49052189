"""`tmkt profile`: operations counted by hand, and the command on a backbone."""

import json
import re

import pytest
import torch

from tmkt.analysis.profile import amount, layer_costs
from tmkt.cli import main
from tmkt.models import create_model
from tmkt_kernels.nn import IF


class TwoSteps(torch.nn.Module):
    """1x1 convolution, neurons, 3x3 convolution, neurons, linear layer, all weights 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.last, self.neuron = torch.nn.Linear(18, 5), IF(v_threshold=1.0)
        for parameter in self.parameters():
            torch.nn.init.ones_(parameter)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        for conv in (self.first, self.second):
            x_seq = self.neuron(conv(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2]))
        return self.last(x_seq.flatten(2))


def test_synaptic_operations_counted_by_hand():
    frames = torch.zeros(2, 1, 1, 3, 3)  # a spike in a corner at the first step, in the middle at the second
    frames[0, 0, 0, 0, 0] = frames[1, 0, 0, 1, 1] = 1
    # The same sample twice, because costs are per sample.
    (first, second, last), outside = layer_costs(TwoSteps(), frames.repeat(1, 2, 1, 1, 1))
    assert (first.inputs, first.macs, first.sops) == ("frames", 2 * 9, 2)
    # A corner reaches 2x2 outputs in each of 2 channels, the middle 3x3; each output reads 9 inputs.
    assert (second.inputs, second.macs, second.sops) == ("spikes", 2 * 9 * 2 * 9, 2 * 4 + 2 * 9)
    assert second.rate == pytest.approx(2 / 18)
    # All outputs reached so far fire, and each reaches 5 outputs of the linear layer.
    assert (last.macs, last.sops) == (2 * 18 * 5, (2 * 4 + 2 * 9) * 5)
    assert first.picojoules == pytest.approx(18 * 4.6)
    assert second.picojoules + last.picojoules == pytest.approx((26 + 130) * 0.9)
    assert outside == 0


def test_synaptic_operations_of_stride_and_groups():
    class Strided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 6, 2, stride=2, groups=2)

        def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
            return self.conv(x_seq.flatten(0, 1))

    frames = torch.zeros(1, 1, 2, 5, 5)
    frames[0, 0, 0, 0, 0] = frames[0, 0, 1, 3, 2] = 3.0  # each reaches one position in the 3 channels of its group
    frames[0, 0, 1, 4, 4] = 1.0  # beyond the last full stride: reaches nothing
    ((cost,), _) = layer_costs(Strided(), frames)
    assert (cost.macs, cost.sops) == (6 * 4 * 4, 2 * 3)


def test_products_of_activations_are_counted_apart():
    model = create_model("spikformer", num_classes=3, size=(16, 16), dim=16, depth=1)
    _, outside = layer_costs(model, torch.ones(2, 1, 2, 16, 16))
    assert outside > 0


def test_profile_of_a_backbone(tmp_path, capsys):
    folder = tmp_path / "small"
    size = ["--size", "16", "16", "-T", "2", "--batch", "2"]
    assert main(["profile", "--model", "small", *size, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "conv 2→16" in printed
    untrained, energy, *_ = printed[printed.index("untrained weights") :].splitlines()
    assert "untrained weights" in untrained
    assert re.match(r"energy: [\d.]+ uJ per sample over 2 steps, [\d.]+ times one dense pass \([\d.]+ uJ\)", energy)
    result = json.loads((folder / "profile.json").read_text())
    assert result["layers"][0]["macs"] == 2 * 16 * 16 * 16 * 2 * 9  # steps, pixels, outputs, inputs, kernel
    assert result["kept_bytes"] > 0
    assert result["inference_seconds"] > 0
    assert (folder / "profile.png").stat().st_size > 100
    for arguments, message in [
        (["profile"], "expected RUN_DIR, CONFIG.yaml, or --model NAME"),
        (["profile", "--model", "smal"], "nearest is 'small'"),
        (["profile", "--model", "small", "--batch", "0"], "--batch"),
        (["profile", str(tmp_path)], "config.yaml is missing"),
        (["diagnose", str(tmp_path), "--draws", "1"], "--draws"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (17.7194e-6, "J", "17.7 uJ"),
        (0.0, "J", "0 pJ"),
        (1e-3, "J", "1.00 mJ"),
        (1_234_567, "", "1.23 M"),
        (7, "", "7.00"),
    ],
)
def test_amounts_have_three_digits_and_a_prefix(value, unit, shown):
    assert amount(value, unit) == shown
