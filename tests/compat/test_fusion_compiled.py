"""A fused batch norm under torch.compile, torch.jit, torch.export and torch.fx."""

import io

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from fusion_net import B, C, Net, T, assert_as_stock, training_or_not
from spikingjelly.activation_based import functional, neuron


@pytest.mark.slow
@training_or_not
@pytest.mark.parametrize("features", [False, True])
def test_compiled(features, training):
    """Under torch.compile nothing is deferred, and there is one graph, as before."""
    torch._dynamo.reset()

    def look(net, x):
        return torch.compile(net, backend="aot_eager", fullgraph=True)(x, features=features)

    assert_as_stock(look, training)


@pytest.mark.slow
def test_compiled_parts_of_a_net():
    def neuron_compiled(net, x):
        net.lif.compile(backend="aot_eager")
        return net(x)

    def tail_compiled(net, x):
        net.lif = torch.compile(net.lif, backend="aot_eager")
        return net(x)

    def function_compiled(net, x):
        net.switch, net.mine = "called_by_a_user_function", torch.compile(lambda h: h * 2, backend="aot_eager")
        return net(x)

    for look in (neuron_compiled, tail_compiled, function_compiled):
        torch._dynamo.reset()
        assert_as_stock(look, False)


def test_traced_and_saved():
    def look(net, x):
        with torch.no_grad():
            traced = torch.jit.trace(net, x.detach(), check_trace=False)  # v persists from call to call
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        functional.reset_net(net)
        return torch.jit.load(file)(x.detach()), net(x)

    assert_as_stock(look, False)


def test_exported():
    def look(net, x):
        program = torch.export.export(net, (x.detach(),), strict=False)
        functional.reset_net(net)
        return program.module()(x.detach()), net(x)

    assert_as_stock(look, False)


def test_symbolically_traced_with_neurons_as_leaves():
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, neuron.BaseNode) or super().is_leaf_module(m, name)

    class Plain(Net):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(2, C, 3, bias=False), nn.BatchNorm2d(C)

        def forward(self, x):
            return self.lif(self.bn(self.conv(x.flatten(0, 1))).unflatten(0, (T, B)))

    def look(net, x):
        graph = torch.fx.GraphModule(net, Tracer().trace(net))
        return graph(x), net(x)

    assert_as_stock(look, False, Plain)
