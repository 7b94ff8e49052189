"""The benchmarks' own arithmetic: gates that can fail, counts of memory and bytes, tables that become outdated."""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("rich", reason="the benchmarks need rich: pip install tmkt[train]")

from benchmarks import charts, report, tables
from benchmarks.case import Contestant, Target, check_neuron, judge
from benchmarks.cases import CASES, events, lif, mixup
from benchmarks.measure import gate, kept_for_backward, measure, peak_memory
from benchmarks.rivals import rivals
from benchmarks.rows import Machine, Measured, read, span

ONCE = {(case.op, case.name): case for case in reversed(CASES) if not case.sweep}


def row(contestant, median, **more):
    defaults = {
        "op": "lif",
        "case": "forward",
        "sweep": "",
        "contestant": contestant,
        "version": "",
        "shape": [2, 3],
        "dtype": "float32",
        "median_ms": median,
        "quartiles_ms": [median, median],
        "yardstick": "copy_",
        "ratio": median,
        "times_ours": median / 2,
        "gb_per_s": 1.0,
        "share_of_copy": 0.5,
        "peak_mb": 10.0 * median,
        "saved_mb": 0.0,
        "first_call_ms": 1.0,
        "targets": [["copy_", 1.15, "time"]],
        "run": "a",
        "device": "CPU",
        "driver": None,
        "threads": 1,
        "torch": "2",
        "cuda": None,
        "triton": None,
        "simd": "avx2",
        "commit": "abc",
        "date": "2026-01-01",
    }
    return defaults | more


ROWS = [row("copy_", 1.0), row("tmkt native", 2.0), row("SpikingJelly", 6.0)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ONCE.values(), ids=[f"{op}-{name}" for op, name in ONCE])
def test_every_case_passes_its_gate(case):
    """All installed rivals; the gate of torch.compile's code is part of its timing."""
    shape = case.shape_on("cpu", small=True)
    inputs = case.inputs("cpu", torch.float32, shape)
    expected = case.expected(inputs)
    contestants = case.contestants("cpu", torch.float32, shape)
    assert case.yardstick in contestants
    for name, contestant in contestants.items():
        if "compile" not in name:
            gate(contestant, inputs, expected, "cpu")
    assert min(case.traffic(inputs)) > 0


def test_a_wrong_result_is_never_timed(monkeypatch):
    right = lif.contestants(lif.forward_backward)

    def wrong(*args):
        late = Contestant(lambda inputs: tuple(t.roll(1, 0) for t in right(*args)["tmkt native"].run(inputs)))
        return right(*args) | {"tmkt native": late._replace(check=check_neuron(torch.float32, 1e-4), ours=True)}

    case = lif.training((4, 3, 5))
    object.__setattr__(case, "contestants", wrong)
    with pytest.raises(AssertionError, match=r"tmkt native: .* spikes differ"):
        measure(case, "cpu", torch.float32, (4, 3, 5), 2, print, lambda name, _: name != "torch.compile")


def test_a_wrong_rival_is_left_out_and_the_others_are_timed():
    notes = []
    case = lif.forward((4, 3, 5))
    build = case.contestants
    wrong = Contestant(lambda inputs: (torch.ones_like(inputs.x),), check_neuron(torch.float32, 1e-4))
    object.__setattr__(case, "contestants", lambda *a: {"copy_": build(*a)["copy_"], "rival": wrong})
    rows = measure(case, "cpu", torch.float32, (4, 3, 5), 2, lambda *a: notes.append(a))
    assert [r["contestant"] for r in rows] == ["copy_"]
    ((why, is_failure),) = notes
    assert is_failure
    assert why.startswith("rival is wrong and left out: ")


def test_a_wrong_gradient_fails_the_gate():
    spikes, grad = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
    check = check_neuron(torch.float32, 1e-6)
    check((spikes, grad), {True: (spikes, grad)})
    with pytest.raises(AssertionError, match="relative L2 error"):
        check((spikes, grad * 1.1), {True: (spikes, grad)})


def test_what_cannot_run_is_named_and_the_others_are_timed():
    def broken(inputs):
        raise RuntimeError("no such kernel\nmore")

    notes = []
    case = lif.forward((2, 3))
    build = case.contestants
    some = {"rival": Contestant(broken), "tmkt triton": Contestant(broken, ours=True)}
    object.__setattr__(case, "contestants", lambda *a: {"copy_": build(*a)["copy_"]} | some)
    rows = measure(case, "cpu", torch.float32, (2, 3), 2, lambda *a: notes.append(a))
    assert [r["contestant"] for r in rows] == ["copy_"]
    why = "cannot run here: RuntimeError: no such kernel"
    assert notes == [(f"rival {why}", False), (f"tmkt triton {why}", True)]
    assert [v.found for v in judge([Target("copy_", 1.0)], rows)] == [None]


@pytest.mark.slow
def test_memory_is_the_calls_own_and_unknown_where_hooks_change_it():
    """Eight tensors are saved in turn, but the peak holds only one, so that the counter must not keep them alive."""

    def run(inputs):
        for _ in range(8):
            inputs.x.exp().sum().backward()

    found = {}
    for changes in (False, True):
        case = lif.training((2, 1000))
        build, contestant = case.contestants, Contestant(run, changes_if_watched=changes)
        object.__setattr__(case, "contestants", lambda *a, b=build, c=contestant: {"copy_": b(*a)["copy_"], "rival": c})
        rows = measure(case, "cpu", torch.float32, (2, 1000), 2, lambda *a: None)
        found[changes] = {r["contestant"]: r for r in rows}["rival"]
    assert found[True]["saved_mb"] is None
    assert found[False]["saved_mb"] == pytest.approx(8 * 8e-3)
    assert max(row["peak_mb"] for row in found.values()) < 6 * 8e-3


def test_unknown_memory_of_ours_judges_no_target():
    rows = [row("copy_", 1.0), row("tmkt accelerate", 2.0, peak_mb=None), row("SpikingJelly", 6.0)]
    targets = [Target("SpikingJelly", 0.5), Target("SpikingJelly", 0.5, "peak memory")]
    assert [v.found for v in judge(targets, rows)] == [pytest.approx(2 / 6), None]


def test_layouts_stand_beside_each_other_by_dtype():
    kinds = [(dtype, name) for dtype in ("float32", "bfloat16") for name in ("forward", "forward, channels_last")]
    rows = [row("tmkt native", 1.0 + i, sweep="layout", dtype=d, case=c) for i, (d, c) in enumerate(kinds)]
    lines = tables.layouts(Machine(Path("gpu.jsonl"), rows))[1].splitlines()[2:]
    assert lines == [
        "| lif forward float32 | 1.000 | 2.000 | 2.00 |",
        "| lif forward bfloat16 | 3.000 | 4.000 | 1.33 |",
    ]


def measured_training(shape, *names):
    """Return the rows of the named contestants."""
    made = measure(lif.training(shape), "cpu", torch.float32, shape, 3, print, lambda name, _: name in names)
    return {r["contestant"]: r for r in made}


@pytest.mark.slow
def test_rows_hold_the_counts_and_the_memory():
    rows = measured_training((4, 2, 512), "tmkt native", "copy_", "copy_ + add", "plain loop")
    ours, x = rows["tmkt native"], 4 * 2 * 512 * 4
    assert ours["bytes"] == 5 * x + x // 4
    assert ours["saved_mb"] == round(x / 1e6, 3)  # x, which the previous layer keeps anyway
    assert ours["peak_mb"] == pytest.approx(2 * x / 1e6, abs=2e-3)  # spikes and gradient, after v_last is freed
    assert ours["samples"] == 9
    low, high = ours["quartiles_ms"]
    assert low <= ours["median_ms"] <= high
    assert rows["copy_ + add"]["ratio"] == 1
    assert rows["plain loop"]["saved_mb"] > 1.9 * ours["saved_mb"]


@pytest.mark.slow
def test_spikingjelly_saves_x_again_and_h():
    pytest.importorskip("spikingjelly", reason="spikingjelly is not installed: pip install tmkt[rivals]")
    rows = measured_training((4, 2, 512), "tmkt native", "copy_", "copy_ + add", "SpikingJelly")
    assert rows["SpikingJelly"]["saved_mb"] == pytest.approx(2 * 4 * 2 * 512 * 4 / 1e6, abs=2e-3)


def test_memory_meters():
    with peak_memory("cpu") as peak:
        a = torch.empty(10_000)
        del a
        b = torch.empty(5_000)
    assert peak[0] == 40_000
    assert b.numel() == 5_000
    saved: dict[int, int] = {}
    weight, x = torch.nn.Parameter(torch.randn(100)), torch.randn(100, requires_grad=True)
    with kept_for_backward(saved):
        _ = (x * weight) * x[:50].repeat(2)  # x once, although views of it are saved; the parameter not at all
    assert sorted(saved.values()) == [400, 400, 400]


def test_bytes_of_mixup_by_count():
    inputs = mixup.inputs(torch.uint8, torch.int16)("cpu", torch.float32, (4, 2, 1, 3, 3))
    inputs.switch_step = torch.tensor([1, 4])  # 3 + 0 event frames
    assert mixup.traffic(inputs).bytes == 2 * 9 + 3 * 9 * 2 + 8 * 9 * 4


def test_recording_has_no_event_on_an_edge_but_its_ends():
    made = events.recording(5_000, 10)
    edges = made["t"][made["t"] % events.BIN_US == 0]
    assert edges.tolist() == [0, 10 * events.BIN_US]
    assert (made["t"][1:] >= made["t"][:-1]).all()


def test_verdicts():
    targets = [
        Target("copy_", 2.0),
        Target("best rival", 0.3),
        Target("best rival", 0.4, "peak memory"),
        Target("x", 1),
    ]
    verdicts = judge([*targets, Target("floor", 1.5)], ROWS)
    assert [v.found for v in verdicts] == [2.0, pytest.approx(1 / 3), pytest.approx(1 / 3), None, 2.0]
    assert [v.met for v in verdicts] == [True, False, True, False, False]
    assert str(verdicts[1]) == "time <= 0.30 x best rival: 0.33, MISSED"
    assert "not measured" in str(verdicts[3])


def test_span():
    assert [span(v, 1) for v in ((), (1.0,), (1.01, 1.02), (2, 1))] == ["", "1.0", "1.0", "1.0 to 2.0"]


@pytest.fixture
def root(tmp_path):
    """A tree with two runs of one machine, and a README and a docs page with marks."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    for page, parts in report.PARTS.items():
        marks = "".join(f"{report.BEGIN.format(name)}\n{report.END.format(name)}\n" for name in parts)
        (tmp_path / page).write_text(f"before\n{marks}after\n")
    rows = [*ROWS, *({**r, "run": "b", "median_ms": r["median_ms"] * 1.5} for r in ROWS)]
    (results / "cpu-threads-1.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def run_report(monkeypatch, root, *arguments):
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    report.main(root)


def test_report_writes_between_the_marks_and_knows_what_is_stale(root, monkeypatch):
    with pytest.raises(SystemExit, match=r"README\.md, docs/benchmarks\.md, benchmark-speed-cpu-threads-1\.png"):
        run_report(monkeypatch, root, "--check")
    run_report(monkeypatch, root)
    text = (root / "docs" / "benchmarks.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert (
        "| lif forward | 2x3 | float32 | 2.00 to 3.00 | 50 % |  | 3.0 |  | time <= 1.15 x copy_: 2.00, **missed** |"
        in text
    )
    assert "- cpu-threads-1: lif forward [2, 3] float32: time <= 1.15 x copy_; 2.00" in text
    assert "missed" not in (root / "README.md").read_text()
    with pytest.raises(SystemExit) as done:
        run_report(monkeypatch, root, "--check")
    assert done.value.code == 0

    path = root / "benchmarks" / "results" / "cpu-threads-1.jsonl"
    path.write_text(path.read_text().replace('"peak_mb": 60.0', '"peak_mb": 61.0'))
    with pytest.raises(SystemExit, match=r"docs/benchmarks\.md, benchmark-speed"):
        run_report(monkeypatch, root, "--check")
    path.rename(path.with_name("other.jsonl"))
    with pytest.raises(SystemExit, match="of no rows"):
        run_report(monkeypatch, root, "--check")


def test_headline_is_the_rivals_fastest_way_and_ours():
    case = {"op": "sew_resnet18", "case": "training step", "shape": [4, 2, 3, 8, 8], "dtype": "bfloat16"}
    gpu = {"cuda": "13.0", "device": "GPU"}
    rows = [row(name, ms, **case, **gpu) for name, ms in (("tmkt accelerate", 20.0), ("SpikingJelly", 80.0))]
    rows.append(row("SpikingJelly precision", 50.0, **case, **gpu))
    line = "| SEW-ResNet18, T = 4, 2 images of 8x8, bfloat16 | 50 ms | 20 ms | 500 MB | 200 MB |"
    assert report.headline([Machine(Path("gpu.jsonl"), rows)]).splitlines()[2:] == [line]


def test_front_table_takes_the_worst_run_and_the_rivals_fastest_way():
    case = {"case": "forward + backward", "saved_mb": 5.0}
    half = case | {"dtype": "bfloat16"}
    rows = [row("tmkt native", 2.0, **case), row("torch.compile", 3.0, **case), row("SpikingJelly", 6.0, **case)]
    rows += [r | {"run": "b", "times_ours": 1.2 * r["times_ours"]} for r in rows]
    rows += [row("tmkt native", 2.0, **case | {"run": "c", "saved_mb": 10.0}), rows[2] | {"run": "c"}]
    rows += [row("tmkt native", 2.0, **half), row("SpikingJelly", 40.0, **half)]
    rows += [row("SpikingJelly precision", 8.0, **(half | {"saved_mb": 20.0}))]
    # 3 / 2 and 6 / 2, not times 1.2; 8 / 2, not 40 / 2; 5 over 10 in run c, and 20 over 5.
    line = "| LIF | 1.5x |  | 3.0x | 4.0x | 0.5x | 4.0x |"
    assert tables.front_table(Machine(Path("cpu-threads-1.jsonl"), rows)).splitlines()[2:] == [line]


@pytest.mark.slow
def test_charts_are_drawn(tmp_path):
    """All charts, each with the rows from which it was drawn."""
    counted = {"bytes": 8_000, "operations": 6_000, "gop_per_s": 4.0}
    rows = [row("copy_", 1.0), row("tmkt native", 2.0, **counted), row("SpikingJelly", 60.0)]
    rows += [row("copy_", 1.0, op="machine"), row("matrix product", 9.0, op="machine", gop_per_s=50.0)]
    for sweep, shapes in (("T", ((1, 8), (2, 4), (8, 1))), ("N", ((4, 10), (4, 1000)))):
        for case in ("forward", "forward + backward"):
            rows += [row("tmkt native", 1.0, sweep=sweep, shape=list(shape), case=case) for shape in shapes]
    case = {"case": "forward + backward", "shape": [2, 1, 1, 1, 3], "saved_mb": 5.0}
    rows += [row(name, 5.0, **case) for name in ("tmkt native", *charts.RIVALS)]
    path = tmp_path / "cpu-threads-1.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    machine = read(path)
    for chart in charts.CHARTS:
        assert chart.has_rows(machine)
        chart.draw(machine, tmp_path / "chart.png")
        assert charts.digest_of(tmp_path / "chart.png") == machine.digest


class TestPeers:
    """Claims of design and docs about the rivals, tested by running them."""

    def test_spikingjelly_runs_half_types_in_its_python_loop(self, monkeypatch):
        pytest.importorskip("spikingjelly", reason="spikingjelly is not installed: pip install tmkt[rivals]")
        import spikingjelly._ops.lif as operator
        import spikingjelly._ops.lif.reference as loop
        from spikingjelly.activation_based import neuron, surrogate

        taken = []
        for module, name in ((operator, "_forward"), (loop, "multi_step")):
            real = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *a, real=real, name=name: taken.append(name) or real(*a))
        for dtype, way in ((torch.float32, "_forward"), (torch.bfloat16, "multi_step"), (torch.float16, "multi_step")):
            node = neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
            node(torch.randn(3, 2, 4).to(dtype))
            assert taken.pop() == way
            assert node.v.dtype == dtype  # its arithmetic is in half precision too

    def test_spikingjelly_precision_needs_cuda(self):
        pytest.importorskip("spikingjelly", reason="spikingjelly is not installed: pip install tmkt[rivals]")
        from benchmarks.rivals import spikingjelly

        if torch.cuda.is_available():
            assert "SpikingJelly precision" in rivals("cuda", torch.bfloat16)
        else:
            with pytest.raises(RuntimeError, match="CUDA"):
                spikingjelly(1.0, torch.bfloat16)


def test_a_chart_shows_one_run_of_a_case():
    """The latest of those with the most contestants: not "c", which lacks the rival, and nothing of "a"."""
    runs = (("a", 10.0, 20.0), ("b", 40.0, 30.0))
    rows = [r | {"run": run} for run, *ms in runs for r in (row("tmkt native", ms[0]), row("SpikingJelly", ms[1]))]
    rows.append(row("tmkt native", 5.0) | {"run": "c"})
    (measured,) = charts.one_of_each(Machine(Path("cpu-threads-1.jsonl"), rows)).values()
    assert list(measured.by_run) == ["b"]
    assert [charts.median(measured, name, "median_ms") for name in ("tmkt native", "SpikingJelly")] == [40.0, 30.0]


def test_memory_is_compared_within_a_run():
    """Our memory is lower in the second run, and so is the rival's; neither is compared with the other run's."""
    runs = {
        name: {"tmkt native": {"median_ms": 1.0, "peak_mb": ours}, "SpikingJelly": {"peak_mb": theirs}}
        for name, ours, theirs in (("first", 40.0, 60.0), ("second", 20.0, 40.0))
    }
    assert tables.memory_over_ours(Measured(runs), "SpikingJelly", "peak_mb") == 1.5
    assert tables.memory_over_ours(Measured(runs), "norse", "peak_mb") is None
