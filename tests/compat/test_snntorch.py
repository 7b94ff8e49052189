"""accelerate on snnTorch 1.0.0: an unchanged loop over steps, and over_time, which takes the whole sequence."""

import copy

import pytest
import torch
from torch import nn

import tmkt_kernels as tk

snn = pytest.importorskip("snntorch", reason="snntorch is not installed")
from snntorch import surrogate, utils

from tmkt_kernels.compat.snntorch import over_time

X = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0)) * 1.5
IMAGES = torch.rand(6, 8, 1, 12, 12, generator=torch.Generator().manual_seed(3))


def loop(cell, x):
    mem, spikes = torch.zeros(x.shape[1:]), []
    for step in x:
        spike, mem = cell(step, mem)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("beta", [0.9, torch.linspace(0.5, 0.95, 6)])
def test_leaky(same_spikes, beta, learn, mechanism):
    cell = snn.Leaky(beta, threshold=0.8, reset_mechanism=mechanism, learn_beta=learn, learn_threshold=learn)
    same_spikes(cell, loop, X, budget=0.0)


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("learn", [False, True])
def test_half(same_half, learn, mechanism):
    """snnTorch's spikes are float32, and make its sums float32."""
    cell = snn.Leaky(0.9, threshold=0.8, reset_mechanism=mechanism, learn_beta=learn, learn_threshold=learn)
    same_half(cell, loop, X, rounds=False)


@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
def test_half_mem_has_snntorchs_dtype(half, mechanism):
    cells = [snn.Leaky(0.9, init_hidden=True, output=True, reset_mechanism=mechanism) for _ in "ab"]
    tk.accelerate(cells[1])
    theirs, ours = ([t.dtype for step in X for t in cell(step.to(half))] for cell in cells)
    assert ours == theirs


def test_half_over_time(half):
    """The whole sequence, behind a batch norm in half that is deferred to the neuron in the loop."""
    nets = [nn.Sequential(nn.BatchNorm1d(6), snn.Leaky(0.9, init_hidden=True, output=True)) for _ in "ab"]
    assert tk.accelerate(nets[1]).fused
    expected = torch.stack([nets[0](step.to(half).float())[0] for step in X])
    spikes = torch.stack([nets[1](step.to(half))[0] for step in X])
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(nets[1][0].running_var, nets[0][0].running_var)
    reset(nets[1])
    whole, mem_seq = over_time(nets[1][1:], X.to(half))
    assert whole.dtype is mem_seq.dtype is torch.float32


@pytest.mark.parametrize(
    "spike_grad",
    [
        surrogate.sigmoid(5),
        surrogate.fast_sigmoid(25),
        surrogate.triangular(),
        surrogate.heaviside(),
        surrogate.SFS(25, 0),
    ],
)
def test_surrogates(same_spikes, spike_grad):
    cell = snn.Leaky(0.8, spike_grad=spike_grad)
    ours, theirs = copy.deepcopy(cell), cell
    tk.accelerate(ours)
    grads = []
    for net in (ours, theirs):
        x = X.clone().requires_grad_()
        loop(net, x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


def tutorial_net():
    """The convolutional network of snnTorch's tutorial 6, narrower, on 12x12."""
    grad = surrogate.fast_sigmoid(slope=25)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.Conv2d(6, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True, output=True),
    )


def reset(net):
    """snnTorch's utils.reset reaches only cells that a constructor made, not the copies that these tests compare."""
    for module in net.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mem()


def step_by_step(net, x):
    reset(net)
    return torch.stack([net(step)[1] for step in x])


@pytest.mark.slow
def test_tutorial_network(compare_training):
    compare_training(tutorial_net(), step_by_step, IMAGES, lr=0.01, fused=1)


def test_over_time_is_the_loop(compare_training):
    net = tutorial_net()
    expected = step_by_step(copy.deepcopy(net), IMAGES)
    spikes, mem = over_time(tk.accelerate(net, fuse_batch_norm=False).model, IMAGES)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(mem, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(net[-1].mem, mem[-1])


def test_over_time_goes_on_where_it_stopped():
    net = tutorial_net().eval()
    tk.accelerate(net)
    reset(net)
    whole = over_time(net, IMAGES)[1]
    reset(net)
    parts = [over_time(net, part)[1] for part in IMAGES.split(3)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_over_time_names_what_it_cannot_take():
    with pytest.raises(TypeError, match="accelerate"):
        over_time(tutorial_net(), IMAGES)
    net = nn.Sequential(nn.Dropout(0.5), snn.Leaky(0.5, init_hidden=True))
    tk.accelerate(net)
    with pytest.raises(ValueError, match=r"net\.0: dropout"):
        over_time(net, X)
    net = nn.Sequential(snn.Leaky(0.5), snn.Leaky(0.5, init_hidden=True))
    tk.accelerate(net)
    with pytest.raises(TypeError, match=r"net\.0: .*init_hidden=True"):
        over_time(net, X)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (snn.Leaky(0.5, reset_delay=False), "reset_delay=False"),
        (snn.Leaky(0.5, graded_spikes_factor=2.0), "graded spikes"),
        (snn.Leaky(0.5, spike_grad=surrogate.SSO()), "surrogate"),
        (snn.Leaky(0.5, spike_grad=lambda x: x), "surrogate"),
        (snn.Synaptic(0.9, 0.5), "Synaptic has no equal"),
    ],
)
def test_left_alone(cell, why):
    report = tk.accelerate(cell)
    assert not report.replaced
    assert why in report.left[""]


def test_a_new_batch_size_starts_again_and_restore_goes_on():
    cell = snn.Leaky(0.9, init_hidden=True)
    tk.accelerate(cell)
    cell(X[0])
    cell(X[1][:2])
    assert cell.mem.shape == (2, 6)
    before = cell.mem
    assert type(tk.restore(cell)) is snn.Leaky
    assert cell.mem is before


def test_utils_reset():
    cell = nn.Sequential(snn.Leaky(0.9, init_hidden=True))
    tk.accelerate(cell)
    cell(X[0])
    assert cell[0].mem.any()
    utils.reset(cell)
    assert not cell[0].mem.any()


def test_mem_with_init_hidden_is_snntorchs_error():
    cell = snn.Leaky(0.9, init_hidden=True)
    tk.accelerate(cell)
    with pytest.raises(TypeError, match="init_hidden"):
        cell(X[0], X[0])


class Loop(nn.Module):
    """A loop over steps with an explicit mem, which torch.compile takes as one graph; a batch norm before a Leaky."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), snn.Leaky(0.9, init_hidden=True, threshold=0.3))
        self.last = snn.Leaky(0.8, learn_beta=True, threshold=0.3, spike_grad=surrogate.fast_sigmoid(25))

    def forward(self, x):
        mem, spikes = self.last.init_leaky(), []
        for step in x:
            spike, mem = self.last(self.first(step), mem)
            spikes.append(spike)
        return torch.stack(spikes), mem


def outcome(net, run):
    """Return outputs, gradients and statistics."""
    outputs = run(net)
    sum(output.sum() for output in outputs).backward()
    return [*(t.detach() for t in outputs), *(p.grad for p in net.parameters()), *net.state_dict().values()]


def assert_as_snntorch(run, make=Loop):
    nets = [make() for _ in "ab"]
    assert tk.accelerate(nets[1]).fused
    expected, ours = (outcome(net, run) for net in nets)
    assert expected[0].any()
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiles_as_one_graph():
    torch._dynamo.reset()
    assert_as_snntorch(lambda net: torch.compile(net, backend="aot_eager", fullgraph=True)(X))


@pytest.mark.slow
@pytest.mark.parametrize("init_hidden", [True, False])
def test_a_sequential_compiles_as_one_graph(init_hidden):
    torch._dynamo.reset()
    cell = snn.Leaky(0.9, init_hidden=init_hidden, output=True)
    net = nn.Sequential(nn.Linear(6, 5), cell) if init_hidden else cell
    ours = copy.deepcopy(net)
    tk.accelerate(ours)
    given = [(step,) if init_hidden else (step, torch.zeros(4, 6)) for step in X[:2]]
    results = []
    for n in (net, ours):
        reset(n)
        compiled = torch.compile(n, backend="aot_eager", fullgraph=True)
        results.append([compiled(*args) for args in given])
    torch.testing.assert_close(results[1], results[0])


def test_traced():
    nets = [nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), snn.Leaky(0.9)).eval() for _ in "ab"]
    nets[1].load_state_dict(nets[0].state_dict())
    tk.accelerate(nets[1])
    expected, ours = (torch.jit.trace(net, X[0], check_trace=False)(X[1]) for net in nets)
    assert torch.equal(ours[0], expected[0])


def learn_beta(net):
    net.first[2].beta.requires_grad_()


def several_betas(net):
    net.first[2].beta = torch.linspace(0.2, 0.9, 5)


def learned_threshold(net):
    net.first[2].threshold = torch.tensor(0.4)
    net.first[2].threshold.requires_grad_()


def neuron_replaced(net):
    net.first[2] = snn.Leaky(0.2, init_hidden=True, threshold=0.1)


def graded(net):
    net.first[2].graded_spikes_factor = torch.tensor(2.0)


@pytest.mark.parametrize("change", [learn_beta, several_betas, learned_threshold, neuron_replaced, graded])
def test_a_fused_neuron_that_changes_later(change):
    """Parameters that become learned, or tensors with several values, take effect."""
    grads = []

    def run(net):
        net(X), reset(net)
        change(net)
        outputs = net(X)
        learned = [net.first[2].beta, net.first[2].threshold, net.first[1].weight]
        wanted = [tensor for tensor in learned if tensor.requires_grad]
        grads.append(torch.autograd.grad(outputs[0].sum(), wanted, retain_graph=True))
        return outputs

    assert_as_snntorch(run)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "look",
    [
        lambda net: (net.first[:2](X[0]),),
        lambda net: (net.first[1](net.first[0](X[0])),),
        lambda net: (nn.Sequential(*net.first[:2], nn.ReLU())(X[0]), net(X)[0]),
        lambda net: (copy.deepcopy(net)(X)[0], net.first[:2](X[1])),
    ],
)
def test_a_fused_batch_norm_that_is_looked_at(look):
    assert_as_snntorch(look)


def test_training_goes_on_after_inference_mode():
    def run(net):
        with torch.inference_mode():
            net.eval()(X)
        net.train()
        return net(X)

    assert_as_snntorch(run)
