"""accelerate on norse 1.1.0: cells in a loop, and Lift, which takes whole sequences."""

import threading

import pytest
import torch
from torch import nn

import tmkt_kernels as tk

pytest.importorskip("norse.torch", reason="norse is not installed")
import norse.torch as norse
from norse.torch.functional.iaf import IAFFeedForwardState
from norse.torch.functional.lif_box import LIFBoxFeedForwardState
from norse.torch.functional.reset import reset_subtract

X = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0)) * 9
MANY = torch.randn(8, 4, 3000, generator=torch.Generator().manual_seed(0)) * 9
PARAMETERS = {
    "default": norse.LIFBoxParameters(),
    "rest, reset and surrogate": norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(300.0),
        v_leak=torch.tensor(0.2),
        v_reset=torch.tensor(-0.1),
        method="triangle",
        alpha=torch.tensor(1.0),
    ),
    "soft": norse.LIFBoxParameters(tau_mem_inv=torch.tensor(200.0), reset_method=reset_subtract),
    "tanh": norse.LIFBoxParameters(tau_mem_inv=torch.tensor(200.0), method="tanh", alpha=torch.tensor(2.0)),
    "erfc": norse.LIFBoxParameters(tau_mem_inv=torch.tensor(200.0), method="heavi_erfc", alpha=torch.tensor(2.0)),
}


def loop(cell, x):
    state, spikes = None, []
    for step in x:
        spike, state = cell(step, state)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("p", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_lif_box(same_spikes, p):
    same_spikes(norse.LIFBoxCell(p), loop, X)
    same_spikes(norse.Lift(norse.LIFBoxCell(p)), lambda lift, x: lift(x)[0], X)


@pytest.mark.parametrize("p", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_half(same_half, p):
    same_half(norse.Lift(norse.LIFBoxCell(p)), lambda lift, x: lift(x)[0], MANY, rounds=True)


@pytest.mark.parametrize("v", [None, torch.zeros(4, 6), torch.tensor(0.0)])
@pytest.mark.parametrize(
    ("cell", "start"), [(norse.LIFBoxCell, LIFBoxFeedForwardState), (norse.IAFCell, IAFFeedForwardState)]
)
def test_half_states_have_norses_dtype(half, cell, start, v):
    """A state in float32 makes everything float32, as in norse; a half state that a call returned stays half."""
    cells = [cell() for _ in "ab"]
    tk.accelerate(cells[1])
    results = []
    for c in cells:
        state = None if v is None else start(v=v)
        first, state = c(X[0].to(half), state)
        second, state = c(X[1].to(half), state)
        results.append([first, second, state.v])
    theirs, ours = results
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    assert ours[0].dtype is (torch.float32 if v is not None and v.dim() else half)


def test_half_begins_at_an_unrounded_rest(half):
    rest = torch.tensor(0.2)
    between = (rest + rest.to(half).float()) / 2
    lifts = [norse.Lift(norse.LIFBoxCell(norse.LIFBoxParameters(v_leak=rest, v_th=between))) for _ in "ab"]
    tk.accelerate(lifts[1])
    x = torch.zeros(1, 1, 1)
    assert lifts[1](x.to(half))[0].item() == lifts[0](x)[0].item()


def test_half_with_a_threshold_for_each_neuron_stays_norses(half):
    cells = [norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.ones(6))) for _ in "ab"]
    tk.accelerate(cells[1])
    (theirs, state), (ours, own) = (cell(X[0].to(half)) for cell in cells)
    assert ours.dtype is theirs.dtype is torch.float32
    assert torch.equal(own.v, state.v)


def test_iaf(same_spikes):
    same_spikes(norse.IAFCell(), loop, X / 9, budget=0.0)


def test_fires_above_the_threshold_only():
    """The rule of norse, and of ours with the threshold at the next float."""
    cells = [norse.IAFCell() for _ in "ab"]
    tk.accelerate(cells[1])
    x = torch.tensor([[[0.5, 1.0]], [[0.5, 2.0**-20]]])
    assert torch.equal(*(loop(cell, x) for cell in cells))
    assert loop(cells[1], x).flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


def test_state_goes_on_and_comes_back():
    lifts = [norse.Lift(norse.LIFBoxCell()) for _ in "ab"]
    tk.accelerate(lifts[1])
    for lift in lifts:
        _, state = lift(X)
        spikes, state = lift((X, state))
        lift.result = spikes, state.v
    for a, b in zip(lifts[0].result, lifts[1].result, strict=True):
        torch.testing.assert_close(a, b)
    assert type(tk.restore(lifts[1])) is norse.Lift


class Net(nn.Module):
    """The network of norse's MNIST tutorial: convolution, pooling, two populations."""

    def __init__(self):
        super().__init__()
        p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.3))
        self.conv, self.pool = norse.Lift(nn.Conv2d(1, 6, 5, padding=2)), norse.Lift(nn.MaxPool2d(2))
        self.lif1, self.fc, self.lif2 = (
            norse.Lift(norse.LIFBoxCell(p)),
            nn.Linear(6 * 36, 10),
            norse.Lift(norse.LIFBoxCell(p)),
        )

    def forward(self, x):
        spikes, _ = self.lif1(self.pool(self.conv(x)))
        return self.lif2(self.fc(spikes.flatten(2)))[0]


def test_network(compare_training):
    compare_training(Net(), lambda net, x: net(x), torch.rand(6, 8, 1, 12, 12) * 3, fused=0)


def test_left_alone():
    report = tk.accelerate(nn.Sequential(norse.LIFCell(), norse.LIFBoxCell(norse.LIFBoxParameters(method="circ"))))
    assert not report.replaced
    assert "LIFCell has no equal" in report.left["0"]
    assert "'circ'" in report.left["1"]


def test_parameters_that_change_later():
    """Parameters that change in place, become learned, or are replaced have the same effect as in norse."""
    p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(1.0))
    cells = [
        norse.LIFBoxCell(norse.LIFBoxParameters(*(v.clone() if torch.is_tensor(v) else v for v in p))) for _ in "ab"
    ]
    tk.accelerate(cells[1])
    rates = []
    for change in (
        lambda cell: None,
        lambda cell: cell.p.v_th.fill_(0.3),
        lambda cell: setattr(cell, "dt", 0.002),
        lambda cell: setattr(cell, "p", norse.LIFBoxParameters(v_th=torch.tensor(0.1))),
    ):
        for cell in cells:
            change(cell)
        expected, spikes = (loop(cell, X) for cell in cells)
        assert torch.equal(spikes, expected)
        rates.append(float(expected.mean()))
    assert len(set(rates)) == 4
    grads = []
    for cell in cells:
        learned = cell.p.v_th.requires_grad_()
        grads.append(torch.autograd.grad(loop(cell, X).sum(), learned))
    assert torch.equal(*(grad for (grad,) in grads))


def test_torch_func_is_norses():
    cells = [norse.LIFBoxCell() for _ in "ab"]
    tk.accelerate(cells[1])

    def loss(cell):
        return lambda x: (cell(x)[1].v.square() + cell(x)[0]).sum()

    for transform in (
        torch.func.grad,
        torch.func.jacrev,
        lambda f: lambda x: torch.func.vjp(f, x)[1](x.new_ones(()))[0],
    ):
        expected, ours = (transform(loss(cell))(X[0]) for cell in cells)
        assert expected.any()
        torch.testing.assert_close(ours, expected)


def test_traced():
    cells = [norse.LIFBoxCell() for _ in "ab"]
    tk.accelerate(cells[1])
    state = LIFBoxFeedForwardState(torch.zeros(4, 6))
    expected, ours = (torch.jit.trace(lambda x, c=cell: c(x, state)[0], X[0])(X[1]) for cell in cells)
    assert torch.equal(ours, expected)


class Cell(nn.Module):
    """A batch norm before a cell that starts at rest, the only pair whose state is not kept in a module."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.norm, self.cell = nn.Linear(6, 5), nn.BatchNorm1d(5), norse.LIFBoxCell()

    def forward(self, x):
        return self.cell(self.norm(self.linear(x)))[1].v


def test_several_threads_at_once(fused_calls):
    nets = [Cell().eval() for _ in "ab"]
    assert tk.accelerate(nets[1]).fused == {"norm": "cell"}
    expected = nets[0](X[0])
    found = []

    def run():
        for _ in range(30):
            found.append((nets[1](X[0]), nets[1].norm(nets[1].linear(X[0]))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 120
    assert fused_calls
    features = nets[0].norm(nets[0].linear(X[0]))
    for v, normalised in found:
        torch.testing.assert_close(v, expected)
        assert torch.equal(normalised, features)
    assert "forward" not in vars(nets[1].norm)


def test_compiles_where_norse_does():
    """With an explicit state, in one graph, and in the second call too."""
    cells = [norse.LIFBoxCell() for _ in "ab"]
    tk.accelerate(cells[1])
    results = []
    for cell in cells:
        torch._dynamo.reset()
        compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
        state, spikes = LIFBoxFeedForwardState(torch.zeros(4, 6)), []
        for step in X[:3]:
            spike, state = compiled(step, state)
            spikes.append(spike)
        results.append([*spikes, state.v])
    assert all(map(torch.equal, *results))
