"""All cases, by operator; `scaling` has the points of the plots."""

from benchmarks.case import Case

from . import bn_lif, camera, events, lif, machine, mixup, scaling, spikingjelly_models, vgg_snn

CASES: list[Case] = [
    case
    for module in (machine, lif, bn_lif, mixup, events, camera, vgg_snn, spikingjelly_models, scaling)
    for case in module.CASES
]

__all__ = ["CASES"]
