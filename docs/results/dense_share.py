"""The share of convolutions and linear layers in SpikingJelly's own training steps, for docs/convert.md.

OMP_NUM_THREADS=1 PYTHONPATH=examples python docs/results/dense_share.py
"""

import spikingjelly_models as models
import torch
from spikingjelly.activation_based import functional
from torch.profiler import ProfilerActivity, profile

STEPS = 5


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images, labels = torch.rand(32, 3, 32, 32), torch.arange(32) % 10
    functional.reset_net(net)
    optimizer.zero_grad(set_to_none=False)
    logits = net(images.expand(4, *images.shape)).mean(0)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    optimizer.step()


for make in (models.vgg11, models.sew):
    net = make()
    functional.set_step_mode(net, "m")
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    step(net, optimizer)  # the first step allocates
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step(net, optimizer)
    time = {event.key: event.self_cpu_time_total / 1e3 / STEPS for event in profiler.key_averages()}
    dense = sum(ms for key, ms in time.items() if any(name in key for name in ("convolution", "addmm", "aten::mm")))
    whole = sum(time.values())
    print(f"{make.__name__}: {dense:.0f} of {whole:.0f} ms a step; the rest free: {whole / dense:.2f} times faster")
