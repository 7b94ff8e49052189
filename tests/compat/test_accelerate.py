"""accelerate without any library: the proof that a batch norm feeds only one neuron, and the cost of importing."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import tmkt_kernels as tk
from tmkt_kernels.compat.proof import proved_pairs


class Base(nn.Module):
    """A batch norm, a neuron (any module without a norm serves) and whatever a test does with them."""

    def __init__(self, inner=None):
        super().__init__()
        self.conv, self.bn, self.sn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()
        self.other = nn.ReLU()
        self.inner = inner


def pairs(model):
    norms = {m for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    neurons = {m for m in model.modules() if isinstance(m, nn.ReLU)}
    names = {module: name for name, module in model.named_modules()}
    proved = proved_pairs(model, norms, neurons)
    return {names[norm]: names[neuron] for pairs in proved.values() for norm, neuron in pairs.items()}


class Plain(Base):
    def forward(self, x):
        return self.sn(self.bn(self.conv(x)))


class Checked(Base):
    def forward(self, x):
        if x.dim() != 5:
            raise ValueError("no sequence")
        steps, batch = x.shape[:2]
        return self.sn(self.bn(self.conv(x.flatten(0, 1))).unflatten(0, (steps, batch)))


class Training(Base):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.sn(y) if self.training else self.sn(y * 2)


class Branch(Base):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.sn(y) if x.sum() > 0 else self.other(y)


class Residual(Base):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.sn(y) + y


class Scaled(Base):
    def forward(self, x):
        return self.sn(self.bn(self.conv(x)) * 0.5)


class NeuronTwice(Base):
    def forward(self, x):
        return self.sn(self.sn(self.bn(self.conv(x))))


class Unrolled(Base):
    def forward(self, x):
        return sum(self.sn(self.bn(self.conv(step))) for step in (x, x))


class Untraceable(Base):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = self.inner(x)
        return self.other(self.bn(x))


class Sharing(nn.Module):
    """The whole cannot be traced, and its two children share a batch norm, which one of them feeds to a pair."""

    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d(2)
        self.a, self.b = nn.Sequential(norm, nn.ReLU()), nn.Sequential(norm, nn.Conv2d(2, 2, 1))

    def forward(self, x):
        return [self.a(x) for _ in range(len(x))], self.b(x)


@pytest.mark.parametrize("model", [Plain, Checked, Unrolled])
def test_proved(model):
    assert pairs(model()) == {"bn": "sn"}


@pytest.mark.parametrize("model", [Training, Branch, Residual, Scaled, NeuronTwice, Sharing])
def test_not_proved(model):
    assert pairs(model()) == {}


def test_proved_in_a_child_where_the_whole_cannot_be_traced():
    assert pairs(Untraceable(inner=Plain())) == {"inner.bn": "inner.sn"}


def test_the_proof_leaves_the_modes_alone():
    model = nn.Sequential(Plain().eval(), Plain().train())
    before = [module.training for module in model.modules()]
    assert len(pairs(model)) == 2
    assert [module.training for module in model.modules()] == before


def test_nothing_to_do_is_said():
    report = tk.accelerate(nn.Linear(2, 2))
    assert "nothing to replace" in str(report)


def test_half_is_checked():
    with pytest.raises(ValueError, match="half: expected 'ours' or 'library', got 'theirs'"):
        tk.accelerate(nn.Linear(2, 2), half="theirs")


@pytest.mark.slow
def test_no_library_is_imported_that_is_not_loaded():
    code = (
        "import sys, torch, tmkt_kernels\n"
        "tmkt_kernels.accelerate(torch.nn.Linear(2, 2))\n"
        "loaded = {'spikingjelly', 'snntorch', 'norse', 'sinabs', 'nir', 'nirtorch'} & set(sys.modules)\n"
        "sys.exit(f'imported: {loaded}' if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_restore_without_accelerate_changes_nothing():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    expected = model(torch.ones(1, 2, 2, 2))
    assert torch.equal(tk.restore(model)(torch.ones(1, 2, 2, 2)), expected)
