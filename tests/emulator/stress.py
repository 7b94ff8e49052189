"""Compare random calls of the operators with the reference: `python stress.py --cases N [--seed N]`, with TMKT_LIBRARY.
The last line is a digest of all outputs, the same for any order of the emulated threads (TMKT_EMULATOR_SEED)."""

import argparse
import hashlib
import math
import random

import torch

import tmkt_kernels as tk
from tmkt_kernels.ops.lif.recurrence import RESET_MECHANISMS
from tmkt_kernels.ops.mixup.functional import INPUT_DTYPES
from tmkt_kernels.surrogate import Surrogate
from tmkt_kernels.testing import (
    BN_FLIP_BUDGET,
    SURROGATE_SHAPES,
    LIFCase,
    assert_gradient_close,
    assert_spikes_equal,
    lif_inputs,
    lif_run,
    lif_truth,
)

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# Where the rounding of h decides, their derivatives jump or grow without bound, so that no tolerance fits all inputs.
SMOOTH = [s for s in Surrogate if s not in (Surrogate.INVERSE, Surrogate.RECTANGLE, Surrogate.LEAKY_RECTANGLE)]


class Stress:
    """Draws cases from a seed, checks them and keeps a digest of the operators' outputs."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.digest = hashlib.sha256()

    def pick(self, *values):
        return self.random.choice(values)

    def view(self, tensor):
        """Return the same values, at times as a view that starts a few elements into its storage."""
        offset = self.pick(0, 0, 1, 2, 4, 8)
        storage = tensor.new_zeros(tensor.numel() + offset)
        view = storage[offset:].view(tensor.shape)
        view.copy_(tensor)
        return view

    def note(self, *tensors) -> None:
        for tensor in tensors:
            self.digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())

    def surrogate(self):
        surrogate = self.pick(*SMOOTH)
        return {"surrogate": surrogate.name.lower(), "alpha": self.pick(*SURROGATE_SHAPES[surrogate])}

    def lif(self) -> None:
        channels = self.pick(1, 3, 8)
        shape = (self.random.randint(1, 40), self.pick(1, 2, 5), channels, *self.pick((), (7,), (4, 8), (5, 3)))
        tensor = lambda *values: [self.pick(*values) for _ in range(self.pick(1, channels))]  # noqa: E731
        if self.pick(True, False):
            neuron = {
                "beta": self.pick(0.5, 0.9, tensor(0.5, 0.7, 0.9)),
                "reset_mechanism": self.pick(*RESET_MECHANISMS),
            }
            neuron["threshold"] = self.pick(1.0, 0.5, tensor(0.5, 0.8))
        else:
            neuron = {"tau": self.pick(1.0, 1.7, 2.0, math.inf, tensor(1.5, 2.0)), "v_reset": self.pick(None, 0.0, 0.2)}
            neuron |= {"v_threshold": self.pick(1.0, tensor(0.7, 1.0)), "detach_reset": self.pick(True, False)}
            neuron |= {"decay_input": self.pick(True, False)}
        name = f"stress-{self.random.random()}"  # the seed of its inputs
        case = LIFCase(name, shape, neuron | self.surrogate(), v_init=self.pick(True, False))
        dtype = self.pick(*FLOATS)
        inputs = lif_inputs(case, dtype)
        inputs = {k: self.view(v) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        outputs, grads = lif_run(case, inputs, "native")
        self.note(*outputs, *grads)
        for actual, expected in zip(outputs, lif_run(case, inputs, "reference")[0], strict=True):
            assert torch.equal(actual, expected), (case, dtype)
        truth, true_grads = lif_truth(case, inputs)
        if torch.equal(truth[0], outputs[0].double()) and max(float(g.abs().max()) for g in true_grads) < 1e3:
            for actual, expected in zip(grads, true_grads, strict=True):
                close(actual, expected, dtype, (case, dtype))

    def bn_lif(self) -> None:
        shape = (
            self.random.randint(1, 40),
            self.pick(1, 3),
            self.pick(1, 3, 8),
            *self.pick((5,), (4, 8), (7, 9), (2, 5)),
        )
        pool = self.pick(1, 2) if len(shape) == 5 else 1
        dtype, channels = self.pick(*FLOATS), shape[2]
        x = self.view((torch.randn(shape) * 1.7 + 0.4).to(dtype))
        if len(shape) == 5 and self.pick(True, False):
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x)
        leaves = [x, torch.rand(channels) + 0.5, torch.randn(channels) * 0.3, self.view(torch.randn(shape[1:]))]
        training = self.pick(True, False)
        given = {} if training else {"mean": torch.randn(channels) * 0.2, "var": torch.rand(channels) + 0.5}
        neuron = {"tau": self.pick(1.0, 1.7, 2.0), "v_reset": self.pick(None, 0.0, 0.2)} | self.surrogate()
        results = []
        for backend, kind in (("native", dtype), ("reference", torch.float64)):
            own = [t.detach() if backend == "native" else t.to(kind) for t in leaves]
            own = [own[0].requires_grad_(), *(t.detach().float().requires_grad_() for t in own[1:])]
            outputs = tk.bn_lif(*own, **given, **neuron, pool=pool, return_v=True, backend=backend)
            generator = torch.Generator().manual_seed(0)
            grads = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs[:3]]
            results.append((outputs, torch.autograd.grad(outputs[:3], own, grads)))
        (outputs, grads), (expected, expected_grads) = results
        self.note(*outputs, *grads)
        what = (shape, dtype, pool, training, neuron)
        same = torch.equal(outputs[0].double(), expected[0].double())
        if pool == 1:
            assert_spikes_equal(outputs[0].double(), expected[0].double(), BN_FLIP_BUDGET)
        else:
            pooled = [pool**2 * o[0].detach().double() for o in (outputs, expected)]  # sums of spikes
            flips, allowed = float((pooled[0] - pooled[1]).abs().sum()), BN_FLIP_BUDGET * pool**2 * pooled[0].numel()
            assert flips <= max(1, allowed), (what, flips, allowed)
        if same and x.numel() // channels >= 64 and max(float(g.abs().max()) for g in expected_grads) < 1e3:
            for actual, truth in zip(grads, expected_grads, strict=True):
                close(actual, truth, dtype, what, slack=10)

    def mixup(self) -> None:
        # Many samples only with few steps, because the emulator is slow.
        T, B = self.pick((self.random.randint(1, 40), self.pick(1, 3, 5)), (2, 300))
        channels = self.pick(1, 2)
        plane, sources = self.pick((1, 1), (5, 7), (4, 8), (3, 2)), self.pick(1, 4)
        kinds = self.pick(*INPUT_DTYPES), self.pick(*INPUT_DTYPES)
        draw = lambda shape, kind: self.view(  # noqa: E731
            (torch.randn(shape) * 3 if kind.is_floating_point else torch.randint(0, 200, shape)).to(kind)
        )
        static = draw((sources, self.pick(1, channels), *plane), kinds[0])
        events = draw((T, sources, channels, *plane), kinds[1])
        index = {name: torch.randint(0, sources, (B,)) for name in ("static_index", "event_index")}
        step, dtype = torch.randint(0, T + 1, (B,)), self.pick(*FLOATS)
        grad = torch.randn(T, B, channels, *plane).to(dtype)
        results = []
        for backend, exact in (("native", False), ("reference", False), ("reference", True)):
            leaves = [(t.double() if exact else t.detach()) if t.is_floating_point() else t for t in (static, events)]
            wanted = [t.requires_grad_() for t in leaves if t.is_floating_point()]
            out = torch.float64 if exact else dtype
            mixed = tk.time_step_mixup(*leaves, step, **index, scale=(0.25, 0.5), dtype=out, backend=backend)
            results.append((mixed, torch.autograd.grad(mixed, wanted, grad.to(out)) if wanted else ()))
        (mixed, grads), (expected, _), (_, exact_grads) = results
        self.note(mixed, *grads)
        assert torch.equal(mixed, expected), (T, B, static.shape, events.shape, kinds, dtype)
        for actual, truth in zip(grads, exact_grads, strict=True):
            close(actual, truth, torch.bfloat16, (T, B, static.shape, events.shape, kinds, dtype))

    def camera(self) -> None:
        """Frames of random cameras and motions, equal bit for bit."""
        B, T = self.pick(1, 3), self.pick(1, 4, 9)
        images = torch.randint(0, 256, (B, self.pick(1, 3), self.pick(3, 8), self.pick(2, 9)), dtype=torch.uint8)
        rough = {"refractory_us": (0, 10), "threshold": (0.02, 0.1), "leak_rate": (0.1, 50)}
        noisy = {"noise_rate": (1, 100), "noise_dimming": (0, 1), "hot_share": (0, 0.3), "hot_rate": (10, 500)}
        camera = tk.Camera.draw(B, self.pick("any", rough, noisy, noisy | {"dead_share": (0, 0.5)}))
        path = {"amplitude": (0.3, 1.5), "leg_us": (5_000, 30_000), "rest_us": (0, 20_000)}
        motion = tk.Motion.draw(B, path | {"fill": (0.4, 2)}, legs=2)
        sizes = self.pick(None, (5, 4), (17, 12)), self.pick((1, 1), (7, 6), (20, 13))
        results = [
            tk.simulate_frames(images, None, motion, camera, T, sizes[0], sensor_size=sizes[1], seed=B, backend=backend)
            for backend in ("native", "reference")
        ]
        self.note(results[0])
        assert torch.equal(*results), (images.shape, T, sizes)


def close(actual, expected, dtype, what, slack: float = 1.0) -> None:
    """As assert_gradient_close, with the case in the message; a result of pure cancellation has no relative error."""
    error, size = float((actual.double() - expected.double()).norm()), float(expected.double().norm())
    if slack == 1.0 and size > 1e-3:
        try:
            assert_gradient_close(actual, expected, dtype)
        except AssertionError as wrong:
            raise AssertionError(what) from wrong
    else:
        allowed = slack * (1e-5 if dtype == torch.float32 else 1e-2) * max(size, 1.0)
        assert error <= allowed, (what, error, allowed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True, warn_only=True)  # unwritten memory is NaN
    torch.utils.deterministic.fill_uninitialized_memory = True
    stress = Stress(options.seed)
    for i in range(options.cases):
        torch.manual_seed(stress.random.randrange(1 << 30))
        (stress.lif, stress.bn_lif, stress.mixup, stress.camera)[i % 4]()
    print(f"{options.cases} cases agree with the reference")
    print(stress.digest.hexdigest())


if __name__ == "__main__":
    main()
