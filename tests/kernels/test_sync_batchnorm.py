"""Synchronised batch norms: statistics and gradients of two processes equal those of their batches together."""

import importlib.util
import itertools

import pytest
import torch
import torch.distributed as dist

from tmkt_kernels import nn

LAYERS = {
    "BatchNormLIF2d": (lambda: nn.BatchNormLIF2d(4, tau=1.7, v_threshold=0.5), (3, 4, 4, 5, 5), 1),
    "BatchNormLIF2d, pooled": (lambda: nn.BatchNormLIF2d(4, v_threshold=0.5, pool=2), (3, 4, 4, 6, 6), 1),
    "BatchNormLIF1d, no affine": (lambda: nn.BatchNormLIF1d(4, v_threshold=0.5, affine=False), (3, 4, 4), 1),
    "BatchNorm2d": (lambda: torch.nn.BatchNorm2d(4), (4, 4, 5, 5), 0),
}


def multi_step():
    from spikingjelly.activation_based import layer

    return layer.BatchNorm2d(4, step_mode="m")


if importlib.util.find_spec("spikingjelly"):
    LAYERS["SpikingJelly's BatchNorm2d, multi-step"] = multi_step, (3, 4, 4, 5, 5), 1

PARTS = [(1, 3), (0, 4)]  # the processes' batches differ in size, or one is empty


def build(name):
    make, shape, batch_dim = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    layer = make()
    if layer.affine:
        layer.weight.data = torch.rand(4, generator=generator) + 1
        layer.bias.data = torch.rand(4, generator=generator)
    x = 100 + torch.randn(shape, generator=generator)
    y_shape = [size // getattr(layer, "pool", 1) if d > 2 else size for d, size in enumerate(shape)]
    return layer, x, torch.randn(y_shape, generator=generator), batch_dim


def step(layer, x, upstream):
    x.requires_grad_()
    y = layer(x)
    (y * upstream).sum().backward()
    grads = {"x": x.grad, **{name: parameter.grad for name, parameter in layer.named_parameters()}}
    return y.detach(), grads, layer.state_dict()


def process(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    answers = {}
    for name, parts in itertools.product(LAYERS, PARTS):
        layer, x, upstream, dim = build(name)
        x, upstream = x.split(parts, dim)[rank].clone(), upstream.split(parts, dim)[rank]
        answers[name, parts] = step(nn.convert_sync_batchnorm(layer), x, upstream)
    torch.save(answers, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    workers = [processes.Process(target=process, args=(rank, folder)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("name", LAYERS)
def test_two_processes_are_one_with_the_whole_batch(two_processes, name, parts):
    layer, x, upstream, dim = build(name)
    y, grads, state = step(layer, x, upstream)
    (y0, grads0, state0), (y1, grads1, state1) = (two_processes[rank][name, parts] for rank in range(2))
    both = torch.cat([y0, y1], dim)
    if "LIF" not in name:
        torch.testing.assert_close(both, y, rtol=0, atol=5e-5)  # the last bit of a mean of 100 is 8e-6
    else:
        assert y.mean() > 0.1  # they fire
        assert torch.equal(both, y)
    torch.testing.assert_close(torch.cat([grads0.pop("x"), grads1.pop("x")], dim), grads.pop("x"), rtol=1e-4, atol=1e-5)
    for key, gradient in grads.items():  # each process has its part of the sum
        torch.testing.assert_close(grads0[key] + grads1[key], gradient, rtol=1e-4, atol=1e-5)
    for key, value in state.items():
        torch.testing.assert_close(state0[key], value)
        assert torch.equal(state0[key], state1[key])


def test_alone_it_is_the_layer_that_it_was():
    layer, x, upstream, _ = build("BatchNormLIF2d")
    y, grads, state = step(layer, x, upstream)
    layer, x, upstream, _ = build("BatchNormLIF2d")
    converted = nn.convert_sync_batchnorm(layer)
    assert converted.weight is layer.weight  # an optimiser made before the conversion still works
    again = step(converted, x, upstream)
    assert torch.equal(again[0], y)
    assert all(torch.equal(again[1][key], grads[key]) for key in grads)
    assert all(torch.equal(again[2][key], state[key]) for key in state)
