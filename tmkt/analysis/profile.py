"""`tmkt profile`: synaptic operations, firing rates, the usual energy estimate, latency and memory of a network.

A synaptic operation is one nonzero input of a convolution or linear layer that reaches one of its outputs. Its weight
is added, which costs an accumulation (AC). The first layer sees frames, not spikes, and counts as dense
multiply-accumulates (MAC). Energies are those of 32-bit floating point in 45 nm: 4.6 pJ per MAC (3.7 for the product,
0.9 for the sum) and 0.9 pJ per AC (Horowitz, "Computing's energy problem", ISSCC 2014). As in the field's tables,
memory access is left out: the estimate compares networks and is not the consumption of any chip.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..atomic_files import make_folder, write_text
from ..config import from_mapping
from ..errors import UserError
from ..models import SpikingClassifier
from ..models.activity import firing_rates, layer_names, layer_titles
from ..models.modes import evaluation_mode, fit_running_statistics
from ..progress import count, say
from ..training.network import build_model, device_for
from .figures import save
from .finished_run import TestSamples, open_run
from .step_time import StepTime, draw_step_times, step_times, variants

MAC_PICOJOULES, AC_PICOJOULES = 4.6, 0.9
WEIGHT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
SAMPLES = 64  # most test recordings to average operations and rates over
_REPEATS = 5


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer, for one sample over all T steps.

    title: such as "conv 2→16". inputs: frames (the network's input), spikes (only 0 and 1), or graded (averages or
    sums of spikes, for which an event-driven chip multiplies, or adds once per spike behind the value). rate: share of
    nonzero inputs. macs: dense. sops: see the module.
    """

    name: str
    title: str
    inputs: str
    rate: float
    macs: float
    sops: float

    @property
    def picojoules(self) -> float:
        """Return the usual estimate: frames as dense MACs, all other inputs as ACs."""
        return self.macs * MAC_PICOJOULES if self.inputs == "frames" else self.sops * AC_PICOJOULES


@dataclass(frozen=True)
class Totals:
    """Totals of one sample over all steps; energies by the usual estimate in nJ.

    outside_macs: products of activations with each other, dense. energy_strict_nj: for hardware that also multiplies by
    graded values, and activations with each other. energy_dense_one_step_nj: all layers once, dense.
    """

    macs: float
    sops: float
    outside_macs: float
    energy_nj: float
    energy_strict_nj: float
    energy_dense_one_step_nj: float

    @staticmethod
    def of(layers: Sequence[LayerCost], outside: float, steps: int) -> "Totals":
        macs, energy = sum(layer.macs for layer in layers), sum(layer.picojoules for layer in layers)
        graded = sum(layer.sops for layer in layers if layer.inputs == "graded")
        strict = energy + graded * (MAC_PICOJOULES - AC_PICOJOULES) + outside * MAC_PICOJOULES
        return Totals(
            macs=macs,
            sops=sum(layer.sops for layer in layers if layer.inputs != "frames"),
            outside_macs=outside,
            energy_nj=energy / 1e3,
            energy_strict_nj=strict / 1e3,
            energy_dense_one_step_nj=(macs + outside) / steps * MAC_PICOJOULES / 1e3,
        )


@dataclass(frozen=True)
class SpeedAndMemory:
    """Medians of a few runs, in seconds, and bytes.

    inference: one sample; training: forward and backward of `train_batch` samples. kept_bytes: memory that the forward
    pass keeps for backward, without parameters, each storage once. peak_bytes: of the allocator, on a GPU only.
    """

    inference_seconds: float
    train_batch: int
    training_seconds: float
    parameters: int
    parameter_bytes: int
    kept_bytes: int
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Profile:
    """Costs of one sample, means over `samples`.

    rates: firing rate of each spiking layer; titles: readable name of each. step_times: of a run's training.
    """

    samples: int
    time_steps: int
    layers: list[LayerCost]
    rates: dict[str, float]
    titles: dict[str, str]
    totals: Totals
    speed: SpeedAndMemory
    untrained: bool = False
    step_times: tuple[StepTime, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return plain values, as in profile.json."""
        plain = asdict(self)
        speed, untrained = plain.pop("speed"), plain.pop("untrained")
        plain["layers"] = [{**asdict(layer), "picojoules": layer.picojoules} for layer in self.layers]
        plain |= {key: value for key, value in speed.items() if value is not None}
        if not self.step_times:
            del plain["step_times"]
        return {**plain, "untrained": True} if untrained else plain

    def write(self, folder: Path) -> None:
        """Write profile.json and profile.png, and with `step_times` step_time.png."""
        write_text(folder / "profile.json", json.dumps(self.record(), indent=1) + "\n")
        save(draw_profile(self), folder / "profile.png")
        if self.step_times:
            save(draw_step_times(self.step_times), folder / "step_time.png")


def layer_costs(model: SpikingClassifier, x_seq: Tensor) -> tuple[list[LayerCost], float]:
    """Return the costs of every weight layer that runs for x_seq [T, B, C, H, W], means over B, and the other MACs.

    The latter are products of activations with each other, e.g. attention's, counted dense.
    """
    seen: dict[str, list[LayerCost]] = {}
    batch = x_seq.shape[1]

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        name, x = names[module], inputs[0]
        kind = "frames" if not seen else "spikes" if bool(((x == 0) | (x == 1)).all()) else "graded"
        active = (x != 0).float()
        macs, sops = _dense(module, output) / batch, _reached(module, active) / batch
        cost = LayerCost(name, _title(module), kind, float(active.mean()), macs, sops)
        seen.setdefault(name, []).append(cost)

    names = layer_names(model, WEIGHT_LAYERS)
    handles = [module.register_forward_hook(hook) for module in names]
    try:
        with evaluation_mode(model):
            model(x_seq)
    finally:
        for handle in handles:
            handle.remove()
    with evaluation_mode(model), FlopCounterMode(display=False) as counter:
        model(x_seq)
    costs = [cost for of_layer in seen.values() for cost in of_layer]
    outside = counter.get_total_flops() / 2 / batch - sum(cost.macs for cost in costs)
    return costs, max(0.0, outside)


def _title(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"linear {module.in_features}→{module.out_features}"
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return f"conv {module.in_channels}→{module.out_channels}"


def _dense(module: nn.Module, output: Tensor) -> float:
    """Return the multiply-accumulates with every input: outputs times the weights of each."""
    weight: Any = module.weight
    return float(output.numel() * weight[0].numel())


def _reached(module: nn.Module, active: Tensor) -> float:
    """Count pairs of a nonzero input and an output that it reaches, with the layer's borders and strides."""
    if isinstance(module, nn.Linear):
        return float(active.sum(dtype=torch.float64)) * module.out_features
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    # All output channels of a group read the same inputs, so one channel of ones per group counts for all of them.
    ones = active.new_ones(module.groups, *module.weight.shape[1:])
    convolve: Callable[..., Tensor] = _CONVOLUTIONS[type(module)]
    counts = convolve(active, ones, None, module.stride, module.padding, module.dilation, module.groups)
    return float(counts.sum(dtype=torch.float64)) * (module.out_channels // module.groups)


def profile(model: SpikingClassifier, x_seq: Tensor, *, train_batch: int = 16, untrained: bool = False) -> Profile:
    """Profile a network on samples x_seq float [T, B, C, H, W], on their device."""
    say(f"counting operations and spikes on {count(x_seq.shape[1], 'sample')}, then timing on {x_seq.device.type}")
    layers, outside = layer_costs(model, x_seq)
    return Profile(
        samples=x_seq.shape[1],
        time_steps=x_seq.shape[0],
        layers=layers,
        rates=firing_rates(model, x_seq),
        titles=layer_titles(model),
        totals=Totals.of(layers, outside, x_seq.shape[0]),
        speed=speed_and_memory(model, x_seq, train_batch),
        untrained=untrained,
    )


def profile_run(
    run_dir: str | Path, train_batch: int, out: str | Path | None, methods: Sequence[str], steps: int
) -> Profile:
    """Profile a finished run on its test recordings, and time the training steps of `methods` (none: its own).

    Writes to `out`, by default <run_dir>/profile/.
    """
    run = open_run(run_dir)
    configs = variants(run.folder.guest_config, methods)
    x_seq = TestSamples(run, SAMPLES).domains()["event"]
    times = step_times(configs, steps, (run.config.data, run.data))
    result = replace(profile(run.model, x_seq, train_batch=train_batch), step_times=tuple(times))
    result.write(run.folder.subfolder("profile") if out is None else make_folder(Path(out)))
    return result


def profile_model(
    name: str,
    *,
    size: tuple[int, int],
    time_steps: int,
    num_classes: int,
    train_batch: int,
    out: str | Path | None = None,
) -> Profile:
    """Profile an untrained backbone with the default neuron; every tenth pixel of its frames holds an event.

    Batch norms have the statistics of these frames, because with their initial ones hardly any neuron would fire.
    """
    settings = {"time_steps": time_steps, "size": list(size)}
    config = from_mapping({"data": settings, "model": {"name": name, "heads": 1}})
    for what, number in {"--classes": num_classes, "--batch": train_batch}.items():
        if number < 1:
            raise UserError(f"{what}: expected at least 1, got {number}")
    device = device_for(config)
    model = build_model(config, num_classes).to(device)
    frames = torch.rand(time_steps, 4, 2, size[1], size[0], generator=torch.Generator().manual_seed(0)) < 0.1
    x_seq = frames.float().to(device)
    fit_running_statistics(model, x_seq)
    result = profile(model, x_seq, train_batch=train_batch, untrained=True)
    if out is not None:
        result.write(make_folder(Path(out)))
    return result


def speed_and_memory(model: SpikingClassifier, x_seq: Tensor, train_batch: int) -> SpeedAndMemory:
    """Time a network on x_seq float [T, B, C, H, W], and measure the memory it keeps; leave the network unchanged."""
    one = x_seq[:, :1].contiguous()
    batch = x_seq[:, torch.arange(train_batch) % x_seq.shape[1]].contiguous()
    parameters = {p.untyped_storage().data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def infer() -> None:
        with evaluation_mode(model):
            model(one)

    def step() -> None:
        model.zero_grad()
        model(batch).logits.float().square().mean().backward()

    training = model.training
    model.train()
    statistics_of_batch_norm = {name: value.clone() for name, value in model.named_buffers()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(batch).logits.float().square().mean()
    del loss
    device = x_seq.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    result = SpeedAndMemory(
        inference_seconds=_median_seconds(infer, device),
        train_batch=train_batch,
        training_seconds=_median_seconds(step, device),
        parameters=sum(p.numel() for p in model.parameters()),
        parameter_bytes=sum(parameters.values()),
        kept_bytes=sum(kept.values()),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )
    model.zero_grad()
    model.load_state_dict(statistics_of_batch_norm, strict=False)
    model.train(training)
    return result


def _median_seconds(call: Callable[[], None], device: torch.device) -> float:
    seconds = []
    for _ in range(_REPEATS + 1):  # the first is a warm-up
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def profile_table(profile: Profile) -> Table:
    """Return one row per layer, for the terminal."""
    title = f"operations and energy per sample over {profile.time_steps} steps, mean of {profile.samples} samples"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("module", min_width=13, overflow="fold")
    table.add_column("inputs")
    for column in ("nonzero", "MACs", "synaptic ops", "energy"):
        table.add_column(column, justify="right")
    for layer in profile.layers:
        amounts = amount(layer.macs), amount(layer.sops), amount(layer.picojoules * 1e-12, "J")
        table.add_row(layer.title, layer.name, layer.inputs, f"{layer.rate:.1%}", *amounts)
    return table


def profile_lines(profile: Profile) -> list[str]:
    """Return the results in a few lines, first the energy relative to one dense pass."""
    totals, speed, MiB = profile.totals, profile.speed, 2**20
    energy, strict, dense = (
        amount(nanojoules * 1e-9, "J")
        for nanojoules in (totals.energy_nj, totals.energy_strict_nj, totals.energy_dense_one_step_nj)
    )
    relative = totals.energy_nj / totals.energy_dense_one_step_nj
    batch, steps = count(speed.train_batch, "sample"), count(profile.time_steps, "step")
    lines = [
        f"energy: {energy} per sample over {steps}, {relative:.2f} times one dense pass ({dense})",
        "  dense pass: the same layers once, on numbers instead of spikes",
        f"  estimate: {MAC_PICOJOULES} pJ per MAC of the first layer, {AC_PICOJOULES} pJ for each of "
        f"{amount(totals.sops)}",
        "  synaptic operations (Horowitz, ISSCC 2014, 45 nm); memory access left out",
        f"  strict: {strict}, if graded inputs and products of activations cost MACs",
        f"speed: {speed.inference_seconds * 1e3:.1f} ms to classify one sample, "
        f"{speed.training_seconds * 1e3:.1f} ms per training step of {speed.train_batch}",
        f"memory: {speed.parameters:,} parameters take {speed.parameter_bytes / MiB:.2f} MiB; "
        f"{batch} keep {speed.kept_bytes / MiB:.1f} MiB for backward",
    ]
    if speed.peak_bytes is not None:
        lines.append(f"  peak on the GPU: {speed.peak_bytes / MiB:.1f} MiB")
    if profile.untrained:
        lines.insert(0, "untrained weights, random frames: a trained network has other rates and energy")
    return lines


def amount(value: float, unit: str = "") -> str:
    """Format with three digits and a prefix: 17.7 uJ; 1.23 M for a number without a unit."""
    prefixes = {1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "u", 1e-9: "n", 1e-12: "p"}
    smallest = min(prefixes) if unit else 1.0
    size = next((size for size in prefixes if size <= value and size >= smallest), smallest)
    digits = max(0, 2 - math.floor(math.log10(value / size))) if value >= size else 0
    return f"{value / size:.{digits}f} {prefixes[size]}{unit}".strip()


def draw_profile(profile: Profile) -> Figure:
    """Draw the energy of each weight layer, and the firing rate of each spiking layer."""
    layers, rates = profile.layers, profile.rates
    figure = Figure(figsize=(10, 1.2 + 0.3 * max(len(layers), len(rates))))
    left, right = figure.subplots(1, 2)
    colours = {"frames": "#d95f02", "spikes": "#1b6ca8", "graded": "#7aa6c2"}
    for inputs, colour in colours.items():
        rows = [i for i, layer in enumerate(layers) if layer.inputs == inputs]
        if rows:
            left.barh(rows, [layers[i].picojoules / 1e6 for i in rows], color=colour, label=inputs)
    left.set_yticks(range(len(layers)), [layer.title for layer in layers], fontsize=8)
    left.set(xlabel="uJ per sample (usual estimate)", title="energy of each layer")
    left.legend(title="inputs", frameon=False, fontsize=8, title_fontsize=8)
    right.barh(np.arange(len(rates)), [100 * rate for rate in rates.values()], color="#555555")
    right.set_yticks(range(len(rates)), [profile.titles[name] for name in rates], fontsize=8)
    right.set(xlabel="% of neurons that fire per step", title="firing rate of each spiking layer")
    for axis in (left, right):
        axis.invert_yaxis()
        axis.title.set_fontsize(9)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    return figure
