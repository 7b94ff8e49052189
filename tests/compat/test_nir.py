"""NIR: our layers there and back, also through a file, and the exports of other libraries with equal spikes."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

from tmkt_kernels import nn
from tmkt_kernels.testing import assert_spikes_equal

pytest.importorskip("tmkt_kernels.compat.nir", reason="no nir >= 1.0.7 with nirtorch", exc_type=ImportError)
import nir

from tmkt_kernels.compat.nir import CubaLIF, from_nir, to_nir
from tmkt_kernels.nn import PerStep

X = torch.rand(8, 4, 6, generator=torch.Generator().manual_seed(0)) * 3
IMAGES = torch.rand(6, 4, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2


def lively(net):
    """Set weights with which every layer fires."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, (torch_nn.Linear, torch_nn.Conv2d)):
            torch_nn.init.uniform_(module.weight, -0.4, 0.5, generator)
            if module.bias is not None:
                torch_nn.init.zeros_(module.bias)
    return net


def dense(*neurons):
    layers = torch_nn.Linear(6, 20), neurons[0], torch_nn.Linear(20, 5, bias=False), neurons[-1]
    return lively(torch_nn.Sequential(*layers))


MODELS = {
    "lif": dense(nn.LIF(tau=1.7, v_reset=0.1, surrogate="sigmoid", alpha=4.0), nn.LIF(3.0, False, 0.5, None)),
    "if": dense(nn.IF(), nn.IF(v_reset=None, detach_reset=False)),
    "tau of each channel": dense(
        nn.LIF(tau=torch.linspace(1.5, 4, 20), v_threshold=0.3), nn.ParametricLIF(init_tau=1.5, v_threshold=0.3)
    ),
    "leaky": dense(nn.Leaky(0.9), nn.Leaky(0.7, 0.8, "zero", surrogate="s2nn", alpha=(4.0, 1.0))),
    "leaky that does not leak": dense(nn.Leaky(1.0), nn.Leaky(0.5, reset_mechanism="none")),
    "cuba": dense(CubaLIF(0.6, nn.Leaky(0.8)), CubaLIF(0.5, nn.LIF(4.0, False, v_reset=None))),
}


def convolutional():
    net = torch_nn.Sequential(
        PerStep(torch_nn.Conv2d(1, 4, 3, padding=1, bias=False)),
        nn.LIF(tau=torch.linspace(1.5, 2, 4)),
        PerStep(torch_nn.AvgPool2d(2)),
        PerStep(torch_nn.Conv2d(4, 4, 3, stride=2)),
        nn.IF(v_threshold=0.3),
        torch_nn.Flatten(2),
        torch_nn.Linear(4, 3),
    )
    return lively(net)


def neuron_options(module):
    return [(type(m), m.keywords) for m in module.modules() if isinstance(m, nn.MultiStepNeuron)]


@pytest.mark.parametrize("kind", MODELS)
def test_round_trip(kind, tmp_path):
    model = MODELS[kind]
    graph = to_nir(model, X)
    nir.write(tmp_path / "model.nir", graph)
    expected = model(X)
    assert 0.01 < expected.mean() < 0.95
    for again in (from_nir(graph), from_nir(nir.read(tmp_path / "model.nir"))):
        assert_spikes_equal(again(X), expected, 1e-3)
        for (_, ours), (_, theirs) in zip(neuron_options(again), neuron_options(model), strict=True):
            assert ours["surrogate"] == theirs["surrogate"]
            assert ours["alpha"] == theirs["alpha"]
            assert ours.get("detach_reset") == theirs.get("detach_reset")


def test_convolutions_and_pooling(tmp_path):
    model = convolutional()
    graph = to_nir(model, IMAGES)
    nir.write(tmp_path / "model.nir", graph)
    for again in (from_nir(graph), from_nir(nir.read(tmp_path / "model.nir"))):
        torch.testing.assert_close(again(IMAGES), model(IMAGES))


@pytest.mark.parametrize("names", [("if", "lambda"), ("a.b", "a_b"), ("training", "code"), ("0", "layer 1")])
def test_any_name_of_a_node(names):
    weights = {name: nir.Linear(np.eye(6) * factor) for name, factor in zip(names, (2.0, 3.0), strict=True)}
    nodes = {"input": nir.Input(np.array([6])), **weights, "output": nir.Output(np.array([6]))}
    graph = nir.NIRGraph(nodes, [("input", names[0]), (names[0], names[1]), (names[1], "output")])
    torch.testing.assert_close(from_nir(graph)(X), X * 6)


def test_residual():
    class Residual(torch_nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.lif, self.b = torch_nn.Linear(6, 6), nn.LIF(), torch_nn.Linear(6, 6)

        def forward(self, x_seq):
            y = self.lif(self.a(x_seq))
            return self.b(y) + y

    model = Residual()
    torch.testing.assert_close(from_nir(to_nir(model, X))(X), model(X))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (torch_nn.ReLU(), "no node for ReLU"),
        (torch_nn.Conv2d(1, 2, 3), r"0: Conv2d takes no sequences; expected PerStep\(Conv2d"),
        (torch_nn.AvgPool2d(2), r"PerStep\(AvgPool2d"),
        (torch_nn.BatchNorm2d(1), "no batch norm; .* fold BatchNorm2d .* nn.utils.fuse_conv_bn_eval"),
        (PerStep(torch_nn.BatchNorm2d(1)), "no batch norm; .* fold BatchNorm2d .* nn.utils.fuse_conv_bn_eval"),
        (nn.BatchNormLIF2d(1), r"no batch norm; .* fold BatchNormLIF2d .* tmkt_kernels.nn.fuse_conv\(conv, layer\)"),
        (PerStep(torch_nn.MaxPool2d(2)), "MaxPool2d"),
        (PerStep(torch_nn.Conv2d(1, 2, 3), torch_nn.AvgPool2d(2)), "expected one layer in each to export, got 2"),
        (PerStep(torch_nn.Conv2d(1, 2, 3, padding_mode="circular")), "circular"),
        (nn.LIF(surrogate=lambda u, alpha: u, backend="reference"), "a function cannot be stored"),
    ],
)
def test_what_nir_cannot_hold_is_named(layer, why):
    takes_sequences = isinstance(layer, (nn.MultiStepNeuron, nn.BatchNormLIF2d, PerStep))
    with pytest.raises(ValueError, match=why):
        to_nir(torch_nn.Sequential(layer), IMAGES if takes_sequences else IMAGES[0])


def test_tensors_in_a_graph_are_read(recwarn):
    """norse and sinabs write tensors, here one with a gradient; numpy 2 warns if it cannot copy."""
    affine = nir.Affine(torch.eye(6, requires_grad=True), torch.ones(6))
    model = from_nir(nir.NIRGraph.from_list(affine, nir.IF(*(torch.full((6,), v) for v in (1e4, 1.0, 0.0)))))
    assert torch.equal(model(X), nn.IF()(X + 1))
    assert not [warning for warning in recwarn if "numpy" in str(warning.message)]


def test_what_we_cannot_hold_is_named():
    def graph(**changes):
        values = {"tau": 2e-4, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
        return nir.NIRGraph.from_list(nir.LIF(**{k: np.full(3, v) for k, v in values.items()}))

    assert from_nir(graph())(X[..., :3]).shape == (8, 4, 3)
    for changes, why in [({"r": 0.5}, "r: expected"), ({"v_leak": 0.3}, "v_leak"), ({"tau": 1e-5}, "tau")]:
        with pytest.raises(ValueError, match=f"node 'lif': .*{why}"):
            from_nir(graph(**changes))
    with pytest.raises(ValueError, match="exported_by: expected"):
        from_nir(graph(), exported_by="lava")
    nodes = {"input": nir.Input(np.array([3])), "a": nir.Linear(np.eye(3)), "output": nir.Output(np.array([3]))}
    with pytest.raises(ValueError, match="no cycles"):
        from_nir(nir.NIRGraph(nodes, [("input", "a"), ("a", "a"), ("a", "output")], type_check=False))


class TestOthersExports:
    """Models that other libraries export themselves, read into ours."""

    @pytest.mark.parametrize("v_reset", [0.0, 0.2])
    def test_spikingjelly(self, v_reset):
        pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="spikingjelly is not installed")
        from spikingjelly.activation_based import functional, layer, neuron, nir_exchange

        torch.manual_seed(0)
        net = torch_nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1),
            neuron.LIFNode(v_reset=v_reset, v_threshold=0.6),
            layer.AvgPool2d(2),
            layer.Flatten(),
            layer.Linear(64, 20),
            neuron.ParametricLIFNode(init_tau=1.5, decay_input=False, v_reset=v_reset),
            layer.Linear(20, 5),
            neuron.IFNode(v_reset=v_reset),
        )
        graph = nir_exchange.export_to_nir(lively(net), IMAGES[0])
        functional.set_step_mode(net, "m")
        functional.reset_net(net)
        expected = net(IMAGES)
        assert expected.mean() > 0.01
        assert_spikes_equal(from_nir(graph, exported_by="spikingjelly")(IMAGES), expected, 1e-3)

    @pytest.mark.parametrize("synaptic", [False, True])
    def test_snntorch(self, synaptic):
        snn = pytest.importorskip("snntorch", reason="snntorch is not installed")
        from snntorch.export_nir import export_to_nir

        torch.manual_seed(0)

        def neurons(size, **options):
            ones = torch.ones(size)
            if synaptic:
                return snn.Synaptic(alpha=0.5 * ones, beta=0.7 * ones, threshold=ones, init_hidden=True, **options)
            return snn.Leaky(0.8 * ones, threshold=ones, init_hidden=True, **options)

        net = torch_nn.Sequential(torch_nn.Linear(6, 20), neurons(20), torch_nn.Linear(20, 5), neurons(5, output=True))
        graph = export_to_nir(net, X[0, :1], ignore_dims=[0])
        for module in (net[1], net[3]):
            module.reset_mem()
        expected = torch.stack([net(step)[0] for step in X])
        assert 0.01 < expected.mean() < 0.95
        assert_spikes_equal(from_nir(graph, exported_by="snntorch")(X), expected, 1e-3)

    def test_norse(self):
        """norse writes tau = dt / tau_mem_inv: with dt=1 that is its time constant, to be read with the real dt."""
        norse = pytest.importorskip("norse.torch", reason="norse is not installed")
        from norse.torch.utils.export_nir import to_nir as norse_to_nir

        torch.manual_seed(0)

        def cell(size):
            zeros = torch.zeros(size)
            p = norse.LIFBoxParameters(tau_mem_inv=zeros + 400, v_th=zeros + 0.3, v_leak=zeros, v_reset=zeros)
            return norse.LIFBoxCell(p)

        net = norse.SequentialState(torch_nn.Linear(6, 20), cell(20), torch_nn.Linear(20, 5), cell(5))
        graph = norse_to_nir(lively(net), X[0, 0], dt=1.0)
        state, expected = None, []
        for step in X * 2:
            spikes, state = net(step, state)
            expected.append(spikes)
        expected = torch.stack(expected)
        assert expected.mean() > 0.01
        assert_spikes_equal(from_nir(graph, dt=1e-3, exported_by="norse")(X * 2), expected, 1e-3)

    def test_sinabs(self):
        pytest.importorskip("sinabs.layers", reason="sinabs is not installed")
        import sinabs.activation as sa
        import sinabs.layers as sl
        import sinabs.nir

        torch.manual_seed(0)
        net = torch_nn.Sequential(torch_nn.Linear(6, 20), sl.IAFSqueeze(batch_size=4, spike_fn=sa.SingleSpike))
        batch_first = X.transpose(0, 1).flatten(0, 1)
        net(batch_first)
        graph = sinabs.nir.to_nir(net, batch_first)
        net[1].reset_states()
        expected = net(batch_first).unflatten(0, (4, 8)).transpose(0, 1)
        assert_spikes_equal(from_nir(graph, dt=1.0, exported_by="sinabs")(X), expected, 1e-3)


def test_spikingjelly_reads_ours():
    pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="spikingjelly is not installed")
    from spikingjelly.activation_based import nir_exchange

    model = dense(nn.LIF(tau=1.7, v_reset=0.1), nn.IF())
    theirs = nir_exchange.import_from_nir(to_nir(model, X), step_mode="m")
    assert_spikes_equal(theirs(X)[0], model(X), 1e-3)


def test_leaky_current_is_a_filter():
    layer = CubaLIF(0.5, nn.Leaky(0.0, 1e30, "none", return_v=True))
    x = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    assert layer(x)[1].flatten().tolist() == [1.0, 0.5, 0.25]
