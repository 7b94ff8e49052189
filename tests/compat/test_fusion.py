"""A fused batch norm answers every question as before: outputs, gradients, statistics, whoever asks, and however."""

import contextlib
import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import tmkt_kernels as tk

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from spikingjelly.activation_based import functional, layer, neuron

T, B, C = 4, 3, 5
X = torch.randn(T, B, 2, 6, 6, generator=torch.Generator().manual_seed(5))


def untouched(h):
    return h


SCRIPTED = torch.jit.trace(lambda h: h * 2, torch.ones(2), check_trace=False)


class Net(nn.Module):
    """A convolution, a batch norm and a neuron, and ways around the neuron that the proof does not see: `switch` is set
    after `accelerate`."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = layer.Conv2d(2, C, 3, bias=False), layer.BatchNorm2d(C)
        self.lif, self.other, self.relu = neuron.LIFNode(), neuron.LIFNode(tau=4.0), nn.ReLU()
        self.switch, self.last, self.mine = None, None, untouched
        functional.set_step_mode(self, "m")

    def forward(self, x, features=False):
        y = self.conv(x)
        h = self.bn(y)
        if features or self.switch == "features":
            return h
        if self.switch is not None:
            return getattr(self, self.switch)(y, h)
        return self.lif(h)

    def features_only(self, x):
        return self.bn(self.conv(x))

    def by_hand(self, x):
        h = self.bn(self.conv(x))
        h += 1
        return self.lif(h)

    def activation(self, y, h):
        return self.relu(h)

    def another_neuron(self, y, h):
        return self.other(h)

    def added_in_place(self, y, h):
        h += 1
        return self.lif(h)

    def scaled_in_place(self, y, h):
        h.mul_(2.0)
        h[0] = 0.5
        return self.lif(h)

    def residual(self, y, h):
        return self.lif(h) + h

    def residual_before(self, y, h):
        return h * 0.5 + self.lif(h)

    def twice(self, y, h):
        return self.lif(h) + self.lif(h)

    def out_of_order(self, y, h):
        second = self.lif(self.bn(y * 0.5 + 3))
        functional.reset_net(self)
        return self.lif(h) + second

    def shape_changed_in_place(self, y, h):
        h.unsqueeze_(0)
        assert h.shape[0] == 1
        assert h.dim() == y.dim() + 1
        return self.lif(h.squeeze_(0)) * h.ndim

    def by_keyword(self, y, h):
        assert torch.numel(input=h) == y.numel()
        return self.lif(torch.reshape(input=h, shape=y.shape))

    def vmapped(self, y, h):
        return self.lif(torch.vmap(lambda step: step * 2)(h))

    def under_a_saved_tensor_hook(self, y, h):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
            return self.lif(h) + h

    def without_saved_tensor_hooks(self, y, h):
        with torch.autograd.graph.disable_saved_tensors_hooks("none here"):
            return self.lif(h + 1)

    def scripted(self, y, h):
        return self.lif(SCRIPTED(h))

    def kept(self, y, h):
        self.last = h
        return self.lif(h)

    def returned(self, y, h):
        return {"spikes": [self.lif(h)], "features": (h, h.flatten(1))}

    def dropped(self, y, h):
        return self.relu(y)

    def reshaped(self, y, h):
        return self.lif(h.reshape(T, B, C, -1).unflatten(3, h.shape[3:]).view(h.shape))

    def permuted(self, y, h):
        return self.lif(h.transpose(3, 4))

    def stacked(self, y, h):
        return torch.cat([self.lif(torch.stack([h, h]).mean(0)), h])

    def without_gradient(self, y, h):
        with torch.no_grad():
            mean = h.mean()
        return self.lif(h) * mean

    def detached(self, y, h):
        return self.lif(h.detach()) + h.sum()

    def data(self, y, h):
        h.data.clamp_(min=0)
        return self.lif(h)

    def numpy(self, y, h):
        return self.lif(h) + float(h.detach().numpy().sum())

    def autograd_function(self, y, h):
        return self.lif(Doubled.apply(h))

    def autograd_function_alone(self, y, h):
        return Doubled.apply(h)

    def autograd_function_reshaped(self, y, h):
        return Doubled.apply(h.flatten(0, 1).view(h.shape))

    def checkpointed(self, y, h):
        def rested(h):
            functional.reset_net(self)
            return self.lif(h)

        return checkpoint(rested, h, use_reentrant=False)

    def gradient_of_it(self, y, h):
        (grad,) = torch.autograd.grad(h.square().sum(), h) if h.requires_grad else (h,)
        return self.lif(h + grad)

    def hooked(self, y, h):
        if h.requires_grad:
            h.register_hook(lambda grad: grad * 3)
        return self.lif(h)

    def called_by_a_user_function(self, y, h):
        return self.lif(self.mine(h))

    def caught(self, y, h):
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0
        return self.lif(h)

    def pickled(self, y, h):
        return self.lif(h) + pickle.loads(pickle.dumps(h.detach())) + copy.deepcopy(h.detach())


SWITCHES = [name for name in vars(Net) if name not in ("__init__", "forward", "features_only", "by_hand")]
SWITCHES = [name for name in SWITCHES if not name.startswith("_")]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * grad + 0 * x


def switched(name):
    def look(net, x):
        net.switch = name
        return net(x)

    return look


def tensors(outcome):
    return [t for t in torch.utils._pytree.tree_leaves(outcome) if isinstance(t, torch.Tensor)]


def everything(net, look, training):
    """Outputs, gradients and statistics of one look at the net."""
    net.train(training)
    x = X.clone().requires_grad_()
    found = tensors(look(net, x))
    assert found
    sum((t * t.detach().cos()).sum() for t in found if t.requires_grad).backward()
    grads = {name: p.grad for name, p in net.named_parameters()} | {"x": x.grad}
    return found, grads, {name: value.clone() for name, value in net.state_dict().items()}


def prepared(make=Net):
    torch.manual_seed(1)
    net = make()
    for bn in (m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        with torch.no_grad():
            (
                bn.running_mean.uniform_(-1, 1),
                bn.running_var.uniform_(0.5, 2),
                bn.weight.uniform_(0.5, 2),
                bn.bias.fill_(0.3),
            )
    return net


def assert_as_stock(look, training, make=Net):
    stock, ours = prepared(make), prepared(make)
    assert tk.accelerate(ours).fused
    results = [everything(net, look, training) for net in (stock, ours)]
    (expected, grads, statistics), (found, our_grads, our_statistics) = results
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert our_grads.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(our_grads[name], grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in statistics.items():
        torch.testing.assert_close(our_statistics[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


training_or_not = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


@training_or_not
@pytest.mark.parametrize("name", ["features", *SWITCHES])
def test_paths_that_the_proof_did_not_see(name, training):
    assert_as_stock(switched(name), training)


def slice_of_children(net, x):
    return nn.Sequential(*list(net.children())[:2])(x)


def slice_with_another_activation(net, x):
    return nn.Sequential(*list(net.children())[:2], nn.ReLU())(x)


def norm_alone(net, x):
    return net.bn(net.conv(x)), net(x)


def norm_by_keyword(net, x):
    norm = nn.Sequential(net.conv, net.bn)[1]
    return norm(x=net.conv(x))


def copied_norm_alone(net, x):
    return copy.deepcopy(net.bn)(net.conv(x)), net(x)


def copy_of_the_net(net, x):
    return copy.deepcopy(net)(x), net.features_only(x)


def pickled_net(net, x):
    again = pickle.loads(pickle.dumps(net))
    return again(x), again(x, features=True), again.bn(again.conv(x)), net.features_only(x)


def saved_net(net, x):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    return again(x, features=True), net.features_only(x)


def neuron_replaced(net, x):
    net.lif = neuron.LIFNode(tau=3.0, v_threshold=0.4, step_mode="m")
    return net(x)


def neuron_replaced_by_an_accelerated_one(net, x):
    net.lif = nn.Sequential(neuron.LIFNode(tau=3.0, v_threshold=0.4, step_mode="m"))
    tk.accelerate(net.lif)
    return net(x)


def neurons_exchanged(net, x):
    net.lif, net.other = net.other, net.lif
    return net(x)


def layer_inserted(net, x):
    net.lif = nn.Sequential(nn.ReLU(inplace=True), net.lif)
    return net(x)


def copying_layer_inserted(net, x):
    net.lif = nn.Sequential(nn.Softplus(), net.lif)
    return net(x)


def norm_replaced(net, x):
    net.bn = nn.Sequential(net.bn, nn.Tanh())
    return net(x)


def norm_parametrized(net, x):
    nn.utils.parametrize.register_parametrization(net.bn, "weight", nn.Softplus())
    return net(x)


def forward_of_the_norm_replaced(net, x):
    net.bn.forward = lambda y, normalise=net.bn.forward: normalise(y) * 2
    return net(x)


def neuron_restored(net, x):
    tk.restore(net.lif)
    return net(x)


def norm_restored(net, x):
    tk.restore(net.bn)
    return net(x), net.bn(net.conv(x))


def forward_without_call(net, x):
    return net.forward(x), net.forward(x, True)


def seen_by_a_hook(net, x):
    seen = []
    handles = [
        net.bn.register_forward_hook(lambda m, args, out: seen.append(out)),
        net.lif.register_forward_pre_hook(lambda m, args: seen.append(args[0])),
    ]
    seen.append(net(x))
    for handle in handles:
        handle.remove()
    return seen


def changed_by_a_hook(net, x):
    net.bn.register_forward_hook(lambda m, args, out: out * 2)
    return net(x)


def seen_by_a_global_hook(net, x):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, out: seen.append(out))
    try:
        net(x)
    finally:
        handle.remove()
    assert len(seen) >= 4
    return seen


def seen_by_a_global_hook_before(net, x):
    seen = []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda m, args: seen.append(args[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return seen


def gradients_seen_by_a_global_hook(net, x):
    seen = []
    handle = nn.modules.module.register_module_full_backward_hook(lambda m, grad_in, grad_out: seen.extend(grad_out))
    try:
        out = net(x)
        out.sum().backward(retain_graph=True)
    finally:
        handle.remove()
    assert len(seen) >= 3
    return [*seen, out]


def gradient_changed_by_a_hook(net, x):
    net.bn.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 3,))
    return net(x)


def hook_put_in_during_the_call(net, x):
    def put_in(conv, args, out):
        net.bn.register_forward_hook(lambda m, args, out: out * 2)

    net.conv.register_forward_hook(put_in)
    return net(x)


def recalibrated(net, x):
    net.bn.reset_running_stats()
    net.bn.momentum = None
    net.bn.train()
    with torch.no_grad():
        for part in x.split(1):
            net.bn(net.conv(part))
    net.bn.eval()
    return net(x)


def recalibrated_in_the_net(net, x):
    net.bn.train()
    net(x.detach()), net(x.detach() * 2, features=True)
    net.bn.eval()
    functional.reset_net(net)
    return net(x)


def checkpointed_whole(net, x):
    def rested(x):
        functional.reset_net(net)
        return net(x)

    return checkpoint(rested, x, use_reentrant=False)


def checkpointed_whole_reentrant(net, x):
    def rested(x):
        functional.reset_net(net)
        return net(x)

    return checkpoint(rested, x, use_reentrant=True)


def saved_on_the_cpu(net, x):
    with torch.autograd.graph.save_on_cpu():
        return net(x)


def functional_call(net, x):
    values = {name: p * 1.5 for name, p in net.named_parameters()}
    return torch.func.functional_call(net, values, (x,)), torch.func.functional_call(net, values, (x, True))


def failing_after_the_norm(net, x):
    def fail(h):
        raise ArithmeticError

    net.switch, net.mine = "called_by_a_user_function", fail
    with pytest.raises(ArithmeticError):
        net(x)
    net.switch = None
    return net.bn.num_batches_tracked, net.bn.running_mean.clone(), net(x)


def interrupted(net, x):
    def interrupt(h):
        raise KeyboardInterrupt

    net.switch, net.mine = "called_by_a_user_function", interrupt
    with pytest.raises(KeyboardInterrupt):
        net(x)
    net.switch = None
    alone = net.bn(net.conv(x))
    assert type(alone) is torch.Tensor
    return alone, net(x), net.features_only(x)


def in_threads(net, x):
    found = {}

    def run(name, look):
        found[name] = look()

    looks = {"norm": lambda: net.bn(net.conv(x)), "net": lambda: net(x, features=True)}
    threads = [threading.Thread(target=run, args=item) for item in looks.items()]
    for thread in threads:
        thread.start()
        thread.join()
    return found


def another_thread_looks_during_the_call(net, x):
    found = []

    def ask(h):
        thread = threading.Thread(target=lambda: found.append(net.bn(net.conv(x))))
        thread.start()
        thread.join()
        return h

    net.switch, net.mine = "called_by_a_user_function", ask
    return net(x), found


def replica_as_of_data_parallel(net, x):
    return replicated(net)(x), replicated(net)(x, True), replicated(net.bn)(net.conv(x))


def replicated(module):
    """As nn.DataParallel makes its replicas, which needs GPUs."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        if child is not None:
            replica._modules[name] = replicated(child)
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        replica._parameters.pop(name, None), replica._buffers.pop(name, None)
        setattr(replica, name, value * 1 if isinstance(value, nn.Parameter) else value)
    return replica


def norm_without_gradient(net, x):
    """The batch norm's output has no gradient, though the neuron is called where gradients are recorded."""

    def gradients(recorded):
        return lambda *_: torch._C._set_grad_enabled(recorded)

    net.conv.register_forward_hook(gradients(False))
    net.switch, net.mine = "called_by_a_user_function", nn.Identity()
    net.mine.register_forward_pre_hook(gradients(True))
    return net(x), net.conv.weight.sum()


def in_double(net, x):
    return net.double()(x.double()).float(), net(x.double(), True).float()


def parameters_changed_right_after(net, x):
    """What was not used has its statistics from the batch norm's call, not from later."""
    features = net(x, features=True).clone()
    net.bn.weight.data.mul_(2), net.bn.running_mean.data.add_(1)
    return features


def seen_by_a_mode(net, x):
    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            names.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    names = []
    with Names():
        out = net(x)
    return out, torch.tensor(names.count("batch_norm"))


def under_a_default_device(net, x):
    with torch.device("cpu"):
        return net(x)


def kept_for_later(net, x):
    net.switch = "kept"
    return net(x), net.last * 1, net.last.flatten(1)


def pruned(net, x):
    prune.l1_unstructured(net.bn, "weight", 0.5)
    return net(x)


def frozen(net, x):
    net.bn.eval()
    net.bn.requires_grad_(False)
    out = net(x)
    for p in net.bn.parameters():
        p.requires_grad_().grad = torch.zeros_like(p)
    return out


def without_a_count_of_batches(net, x):
    net.bn.num_batches_tracked = None
    return net(x)


def without_running_statistics(net, x):
    net.bn.running_mean = net.bn.running_var = None
    return net(x)


def without_scale_and_offset(net, x):
    net.bn.weight = net.bn.bias = None
    return net(x)


def averaged(net, x):
    average = torch.optim.swa_utils.AveragedModel(net)
    torch.optim.swa_utils.update_bn([x.detach(), x.detach() * 2], average)
    functional.reset_net(average)
    return average.module(x), average.module.features_only(x), net.features_only(x), *average.module.buffers()


def folded_into_the_convolution(net, x):
    """For inference, as torch does it."""
    net.eval()
    net.conv, net.bn = nn.utils.fuse_conv_bn_eval(net.conv, net.bn), nn.Identity()
    return net(x)


def shallow_copy(net, x):
    other = copy.copy(net)
    other._modules = dict(net._modules, lif=neuron.LIFNode(tau=3.0, step_mode="m"))
    return other(x), net(x, True)


def calls_itself(net, x):
    net.switch, net.mine = "called_by_a_user_function", lambda h: h + net.mine_off(h)

    def off(h):
        net.switch = None
        out = net(x * 0.5)
        functional.reset_net(net)
        return out

    net.mine_off = off
    return net(x)


def forward_hooks_cleared(net, x):
    net._forward_hooks.clear()
    first = net(x)
    return first, net.bn(net.conv(x)), net(x, True)


def under_anomaly_detection(net, x):
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        return net(x), net(x, True)


def gradient_of_an_intermediate_feature(net, x):
    features = net(x, True)
    features.retain_grad()
    features.square().sum().backward(retain_graph=True)
    return features, features.grad


def owner_in_another_owner(net, x):
    whole = nn.Sequential(net, nn.Flatten(2))
    if isinstance(net.lif, tk.compat._replacement.Accelerated):
        tk.accelerate(whole)
    return whole(x), net(x, True), whole[0].bn(net.conv(x))


LOOKS = [
    lambda net, x: net(x),
    lambda net, x: net(x, features=True),
    lambda net, x: net(x, True),
    lambda net, x: net.features_only(x),
    lambda net, x: net.by_hand(x),
    slice_of_children,
    slice_with_another_activation,
    norm_alone,
    norm_by_keyword,
    copied_norm_alone,
    copy_of_the_net,
    pickled_net,
    saved_net,
    neuron_replaced,
    neuron_replaced_by_an_accelerated_one,
    neurons_exchanged,
    layer_inserted,
    copying_layer_inserted,
    norm_replaced,
    norm_parametrized,
    forward_of_the_norm_replaced,
    neuron_restored,
    norm_restored,
    forward_without_call,
    seen_by_a_hook,
    changed_by_a_hook,
    seen_by_a_global_hook,
    seen_by_a_global_hook_before,
    gradients_seen_by_a_global_hook,
    gradient_changed_by_a_hook,
    hook_put_in_during_the_call,
    recalibrated,
    recalibrated_in_the_net,
    checkpointed_whole,
    checkpointed_whole_reentrant,
    saved_on_the_cpu,
    functional_call,
    failing_after_the_norm,
    interrupted,
    in_threads,
    another_thread_looks_during_the_call,
    replica_as_of_data_parallel,
    norm_without_gradient,
    in_double,
    parameters_changed_right_after,
    seen_by_a_mode,
    under_a_default_device,
    kept_for_later,
    pruned,
    frozen,
    without_a_count_of_batches,
    without_running_statistics,
    without_scale_and_offset,
    averaged,
    folded_into_the_convolution,
    shallow_copy,
    calls_itself,
    forward_hooks_cleared,
    under_anomaly_detection,
    gradient_of_an_intermediate_feature,
    owner_in_another_owner,
]


@training_or_not
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__.strip("<>"))
def test_other_ways_to_look(look, training):
    assert_as_stock(look, training)


class Contained(nn.Module):
    """SpikingJelly's container of a convolution and a batch norm, which folds time into the batch."""

    def __init__(self):
        super().__init__()
        self.conv_bn = layer.SeqToANNContainer(nn.Conv2d(2, C, 3, bias=False), nn.BatchNorm2d(C))
        self.lif, self.switch = neuron.LIFNode(step_mode="m"), None

    def forward(self, x):
        return self.lif(self.conv_bn(x))


def container_alone(net, x):
    return net.conv_bn(x), net(x)


def hook_on_the_container(net, x):
    seen = []
    net.conv_bn.register_forward_hook(lambda m, args, out: seen.append(out))
    net.conv_bn.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 2,))
    return net(x), seen


def layers_up_to_one(net, x):
    getter = pytest.importorskip("torchvision.models._utils").IntermediateLayerGetter(net, {"conv_bn": "features"})
    return getter(x)


def compiled_container(net, x):
    net.conv_bn.compile(backend="aot_eager")
    return net(x)


@training_or_not
@pytest.mark.parametrize(
    "look",
    [lambda net, x: net(x), container_alone, hook_on_the_container, layers_up_to_one, compiled_container],
    ids=["net", "container alone", "hook", "IntermediateLayerGetter", "compiled"],
)
def test_a_container(look, training):
    assert_as_stock(look, training, Contained)


def test_the_pair_runs_as_one_operator_where_nobody_looks(fused_calls):
    net = prepared()
    tk.accelerate(net)
    copies = [net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.eval(), replicated(net)]
    for n in copies:
        functional.reset_net(n)
        n(X)
    with torch.inference_mode():
        net(X)
    assert fused_calls == [(T, B, C, 4, 4)] * 6
    net(X, features=True), net.bn(net.conv(X)), tk.restore(net)(X)
    assert len(fused_calls) == 6


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = Net(), layer.Linear(C, 2)

    def forward(self, x):
        return self.head(self.net(x).flatten(3).mean(3))


def test_a_module_in_two_owners(fused_calls):
    """accelerate on a part, then on the whole, then on both again: one operator, and restore takes all of it back."""
    nested = Nested()
    assert tk.accelerate(nested.net).fused == {"bn": "lif"}
    assert not tk.accelerate(nested).fused
    tk.accelerate(nested.net)
    nested(X)
    assert len(fused_calls) == 1
    hooks = [m for m in nested.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == [nested.net]
    tk.restore(nested)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in nested.modules())
    assert "fused_pairs" not in vars(nested.net)


def test_outside_of_a_call_a_batch_norm_is_the_librarys():
    net = prepared()
    before = dict(vars(net.bn))
    tk.accelerate(net)
    net(X)
    assert type(net.bn) is layer.BatchNorm2d
    assert vars(net.bn).keys() == before.keys()


class ChangedBetween(Net):
    """What the batch norm read is changed in place before the neuron is called."""

    def forward(self, x):
        y = self.conv(x)
        h = self.bn(y)
        y += 1
        return self.lif(h)


@pytest.mark.parametrize("change", [lambda y: y.mul_(2), lambda y: y[0].zero_(), lambda y: nn.ReLU(inplace=True)(y)])
def test_an_input_that_is_changed_before_the_neuron_is_called(change, monkeypatch):
    """Seen by the proof; on a path that it does not see, refused, for what the batch norm read is lost."""
    assert not tk.accelerate(ChangedBetween()).fused
    net = prepared().eval()
    tk.accelerate(net)
    monkeypatch.setattr(Net, "changed_later", lambda self, y, h: (change(y), self.lif(h))[1], raising=False)
    net.switch = "changed_later"
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"modified in place .* fuse_batch_norm=False"):
        net(X)
    net.switch = None
    net(X)


@pytest.mark.parametrize("ask", ["retain_grad", "register_hook", "autograd.grad"])
def test_the_gradient_at_a_batch_norms_output_is_refused_where_its_neuron_did_the_work(ask):
    net = prepared()
    tk.accelerate(net)
    net.switch = "kept"
    out = net(X)
    asks = {
        "retain_grad": lambda h: h.retain_grad(),
        "register_hook": lambda h: h.register_hook(untouched),
        "autograd.grad": lambda h: torch.autograd.grad(out.sum(), [h]),
    }
    with pytest.raises(RuntimeError, match="fuse_batch_norm=False"):
        asks[ask](net.last)


def test_code_below_python_sees_the_value():
    """An operator that is called without `__torch_function__`; one that writes is refused."""
    net = prepared().eval()
    expected = net(X, features=True)
    tk.accelerate(net)
    net.switch = "called_by_a_user_function"
    seen = []

    def below(h):
        with torch._C.DisableTorchFunctionSubclass():
            seen.append(h.view_as(h) * 2)
            with torch.no_grad(), pytest.raises(RuntimeError, match="below Python"):
                h.mul_(2)
        return h

    net.mine = below
    net(X)
    torch.testing.assert_close(seen[0], expected * 2)
    seen[0].sum().backward()
    assert net.conv.weight.grad.any()


@training_or_not
@pytest.mark.parametrize("features", [False, True])
def test_compiled(features, training):
    """Under torch.compile nothing is put off, and there is one graph as before."""
    torch._dynamo.reset()

    def look(net, x):
        return torch.compile(net, backend="aot_eager", fullgraph=True)(x, features=features)

    assert_as_stock(look, training)


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
            traced = torch.jit.trace(net, x.detach(), check_trace=False)  # v goes on from call to call
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
