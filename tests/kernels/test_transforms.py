"""torch.func, forward mode and second-order gradients, against the reference's plain autograd and loops."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import tmkt_kernels as tk
from tmkt_kernels import nn

BACKENDS = ["auto", "native", "reference"]
backends = pytest.mark.parametrize("backend", BACKENDS)
SWITCH = torch.tensor([0, 3, 1])
EVENTS = torch.randn(4, 3, 2, 2, 5, generator=torch.Generator().manual_seed(1))


def ones(x):
    return torch.ones(x.shape[2])


# name: (x, backend) -> outputs; smooth surrogates, because their second derivatives are not zero
OPERATORS = {
    "lif": lambda x, backend: tk.lif(x, tau=1.7, v_threshold=0.5, return_v=True, backend=backend),
    "lif-attached": lambda x, backend: tk.lif(x, v_reset=None, detach_reset=False, v_threshold=0.5, backend=backend),
    "lif-tensors": lambda x, backend: tk.lif(x, tau=ones(x) + x.mean() ** 2, v_reset=x.mean(), backend=backend),
    "leaky-zero": lambda x, backend: tk.leaky(x, beta=0.8, reset_mechanism="zero", threshold=0.5, backend=backend),
    "leaky-tensor": lambda x, backend: tk.leaky(x, beta=x.mean().abs(), threshold=0.5, backend=backend),
    "bn_lif": lambda x, backend: tk.bn_lif(x, ones(x) + x.mean(), v_threshold=0.5, backend=backend)[:2],
    "bn_lif-pooled": lambda x, backend: tk.bn_lif(x, v_init=x[0], v_threshold=0.5, pool=2, backend=backend)[:2],
    "bn_lif-eval": lambda x, backend: tk.bn_lif(
        x, ones(x), x.mean() * ones(x), mean=0 * ones(x), var=ones(x), v_threshold=0.5, return_v=True, backend=backend
    )[:3],
    "mixup": lambda x, backend: (tk.time_step_mixup(x[0], EVENTS * x.mean(), SWITCH, backend=backend),),
}
operators = pytest.mark.parametrize("name", OPERATORS)


def inputs():
    return torch.randn(4, 3, 2, 2, 5, generator=torch.Generator().manual_seed(3))


def loss_of(name, backend):
    def loss(x):
        outputs = OPERATORS[name](x, backend)
        weights = [torch.cos(torch.arange(o.numel())).view(o.shape) for o in outputs]
        return sum(((o * w).square() / 9 + o * w).sum() for o, w in zip(outputs, weights, strict=True))

    return loss


def plain(name, x, second=False):
    """Return the reference's gradient by plain autograd, or the gradient of its sum of squares."""
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss_of(name, "reference")(x), x, create_graph=second)
    return torch.autograd.grad(first.square().sum(), x)[0] if second else first


def close(actual, expected):
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@operators
@backends
def test_grad_and_vjp(name, backend):
    x, loss = inputs(), loss_of(name, backend)
    close(grad(loss)(x), plain(name, x))
    value, pull = vjp(loss, x)
    close(pull(torch.ones_like(value))[0], plain(name, x))


@operators
@backends
def test_per_sample_gradients(name, backend):
    """The result equals a loop over the samples: the statistics are those of one sample."""
    xs = torch.randn(3, 4, 3, 2, 2, 5)
    close(vmap(grad(loss_of(name, backend)))(xs), torch.stack([plain(name, x) for x in xs]))
    xs = xs.movedim(0, 2)
    close(
        vmap(loss_of(name, backend), in_dims=2)(xs), torch.stack([loss_of(name, "reference")(x) for x in xs.unbind(2)])
    )


@operators
@backends
def test_second_order(name, backend):
    x, loss = inputs(), loss_of(name, backend)
    expected = plain(name, x, second=True)
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    close(torch.autograd.grad(first.square().sum(), leaf)[0], expected)
    close(grad(lambda x: grad(loss)(x).square().sum())(x), expected)


@operators
def test_third_order(name):
    def third(backend):
        x = inputs().requires_grad_()
        value = loss_of(name, backend)(x)
        for _ in range(2):
            (first,) = torch.autograd.grad(value, x, create_graph=True)
            value = first.square().sum()
        return torch.autograd.grad(value, x)[0]

    close(third("native"), third("reference"))


@operators
def test_jacobians_and_hessians(name):
    x = inputs()[:, :, :, :1, :2].contiguous() if name not in ("mixup", "bn_lif-pooled") else inputs()[:, :, :, :, :2]
    x = inputs() if name == "mixup" else x
    outputs = lambda x: OPERATORS[name](x, "auto")[-1].flatten()[:7]  # noqa: E731
    leaf = x.clone().requires_grad_()
    rows = OPERATORS[name](leaf, "reference")[-1].flatten()[:7]
    expected = torch.stack([torch.autograd.grad(r, leaf, retain_graph=True)[0] for r in rows])
    close(jacrev(outputs)(x), expected)
    close(jacfwd(outputs)(x), expected)
    if name != "mixup":
        close(hessian(loss_of(name, "auto"))(x), jacrev(jacrev(loss_of(name, "native")))(x))


@operators
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_tangents(name, backend):
    """Forward mode and reverse mode agree on the directional derivative."""
    x, direction, loss = inputs(), torch.randn(4, 3, 2, 2, 5), loss_of(name, backend)
    expected = (plain(name, x) * direction).sum()
    close(jvp(loss, (x,), (direction,))[1], expected)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(loss(forward_ad.make_dual(x, direction))).tangent, expected)


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_kernel_asked_for_by_name_has_no_tangents(backend):
    x = inputs()
    for call in (tk.lif, tk.bn_lif, lambda x, backend: tk.leaky(x, beta=0.9, backend=backend)):
        with pytest.raises(RuntimeError, match=f"backend '{backend}' cannot serve .*forward-mode"):
            jvp(lambda y, call=call: call(y, backend=backend)[1], (x,), (x,))


@pytest.mark.slow
@operators
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_compiled(name, backend):
    """torch.compile would trace an autograd.Function under a transform to gradients of zero."""
    torch._dynamo.reset()
    loss, x = loss_of(name, backend), inputs()
    compiled = torch.compile(lambda x: grad(loss)(x), fullgraph=True, backend="aot_eager")
    close(compiled(x), plain(name, x))
    torch._dynamo.reset()
    xs = torch.randn(2, 4, 3, 2, 2, 5)
    compiled = torch.compile(lambda xs: vmap(grad(loss))(xs), fullgraph=True, backend="aot_eager")
    close(compiled(xs), torch.stack([plain(name, x) for x in xs]))


@pytest.mark.slow
@operators
def test_compiled_tangents(name):
    torch._dynamo.reset()
    x, direction, loss = inputs(), torch.randn(4, 3, 2, 2, 5), loss_of(name, "auto")
    compiled = torch.compile(lambda x, d: jvp(loss, (x,), (d,))[1], fullgraph=True, backend="aot_eager")
    close(compiled(x, direction), (plain(name, x) * direction).sum())


LAYERS = {
    "LIF": lambda **k: nn.LIF(tau=torch.nn.Parameter(torch.full((6,), 1.7)), v_threshold=0.5, **k),
    "ParametricLIF": lambda **k: nn.ParametricLIF(channels=6, v_threshold=0.5, **k),
    "Leaky": lambda **k: nn.Leaky(0.8, threshold=0.5, learn_beta=True, learn_threshold=True, **k),
    "BatchNormLIF1d": lambda **k: nn.BatchNormLIF1d(6, v_threshold=0.5, **k).eval(),
}


@pytest.mark.parametrize("name", LAYERS)
@backends
def test_per_sample_gradients_of_a_model(name, backend):
    """functional_call, vmap over samples, gradients of all parameters, as in differential privacy or MAML."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), LAYERS[name](backend=backend), torch.nn.Linear(6, 2))
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    xs = 2 * torch.randn(3, 4, 1, 5)

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).square().sum()

    gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, xs)
    for i, x in enumerate(xs):
        model.zero_grad()
        model(x).square().sum().backward()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[key][i], parameter.grad, rtol=1e-4, atol=1e-5)
    assert all(gradient.any() for key, gradient in gradients.items() if key.startswith("1."))


@pytest.mark.parametrize("track", [True, False])
def test_training_a_batch_norm_layer(track):
    """Running averages change if they are arguments of the transformed function."""
    model = nn.BatchNormLIF1d(6, v_threshold=0.5, track_running_stats=track)
    x = torch.randn(4, 3, 6)
    state = dict(model.named_parameters()), dict(model.named_buffers())
    parameters, buffers = ({key: t.detach().clone() for key, t in part.items()} for part in state)

    def loss(parameters, buffers):
        return functional_call(model, (parameters, buffers), (x,)).square().sum(), buffers

    gradients, moved = grad(loss, has_aux=True)(parameters, buffers)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad)
    for key, buffer in model.named_buffers():
        torch.testing.assert_close(moved[key], buffer)


@pytest.mark.parametrize("transform", [lambda f, x: grad(lambda x: f(x).sum())(x[0]), lambda f, x: vmap(f)(x)])
def test_captured_running_averages_are_refused(transform):
    model, x = nn.BatchNormLIF1d(6), torch.randn(2, 4, 3, 6)
    with pytest.raises(RuntimeError, match=r"running averages under torch.func; call .eval\(\)"):
        transform(model, x)
    assert model.num_batches_tracked == 0


def test_a_stateful_layer_refuses_transforms():
    layer = nn.LIF(stateful=True)
    for transform in (lambda f, x: grad(f)(x), lambda f, x: vmap(f)(x)):
        with pytest.raises(RuntimeError, match=r"stateful layer cannot run under torch\.func"):
            transform(lambda x: layer(x).sum(), inputs())
    assert layer.v is None


def test_indices_are_checked_under_transforms():
    static, events = torch.randn(2, 3, 2, 4, 4), torch.randn(5, 3, 2, 4, 4)
    steps = torch.tensor([[0, 1, 2], [3, 5, 6]])
    with pytest.raises(IndexError, match=r"switch_step: expected values in 0..5, got 0..6"):
        vmap(lambda s, k: tk.time_step_mixup(s, events, k))(static, steps)


def test_a_user_surrogate_serves_transforms():
    own = lambda u, alpha: alpha / (1 + u.abs()).square()  # noqa: E731
    x = inputs()
    calls = [lambda x, s=s: tk.lif(x, surrogate=s, backend="reference")[0].sum() for s in (own, "super_spike")]
    for transform in (grad, lambda f: vmap(grad(f)), lambda f: lambda x: jvp(f, (x,), (x,))[1]):
        close(*(transform(call)(x) for call in calls))
