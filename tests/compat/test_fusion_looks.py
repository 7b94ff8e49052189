"""Other ways to observe a fused batch norm: parts, copies, files, threads, checkpoints."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
from fusion_net import assert_as_stock, replicated, training_or_not
from spikingjelly.activation_based import functional


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


def forward_without_call(net, x):
    return net.forward(x), net.forward(x, True)


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


def under_a_default_device(net, x):
    with torch.device("cpu"):
        return net(x)


def kept_for_later(net, x):
    net.switch = "kept"
    return net(x), net.last * 1, net.last.flatten(1)


def calls_itself(net, x):
    net.switch, net.mine = "called_by_a_user_function", lambda h: h + net.mine_off(h)

    def off(h):
        net.switch = None
        out = net(x * 0.5)
        functional.reset_net(net)
        return out

    net.mine_off = off
    return net(x)


def under_anomaly_detection(net, x):
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        return net(x), net(x, True)


def gradient_of_an_intermediate_feature(net, x):
    features = net(x, True)
    features.retain_grad()
    features.square().sum().backward(retain_graph=True)
    return features, features.grad


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
    forward_without_call,
    checkpointed_whole,
    checkpointed_whole_reentrant,
    saved_on_the_cpu,
    functional_call,
    failing_after_the_norm,
    interrupted,
    in_threads,
    another_thread_looks_during_the_call,
    replica_as_of_data_parallel,
    under_a_default_device,
    kept_for_later,
    calls_itself,
    under_anomaly_detection,
    gradient_of_an_intermediate_feature,
]


@training_or_not
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__.strip("<>"))
def test_other_ways_to_look(look, training):
    assert_as_stock(look, training)
