"""Loops over time and adjoints, per device."""

from tests.structure import recurrences


def test_loops_over_time(tree):
    cpu = """
    void forward(int T) { for (int t = 0; t < T; ++t) { v = neuron.charge(v, x[t]); } }
    void once() { charge(v, x); }
    void scan(int T) { for (int t = 0; t < T; ++t) once(); }
    void other(int T) { for (int t = 0; t < T; ++t) add(t); charge(v, x); }
    """
    triton = """
def scan_kernel(x, T, NEURON):
    for t in range(T):
        v = NEURON.charge(v, x)
def other_kernel(x):
    v = NEURON.charge(v, x)
    for t in range(T):
        v += 1
def chunk(x):
    for t in range(T):
        v = NEURON.charge(v, x)
def group(x):
    for t in range(T):
        g = NEURON.adjoint(g, x)
def back_kernel(x):
    chunk(x)
    group(x)
"""
    reference = (
        "def reference(x):\n    return [lif_step(v, now) for now in x]\ndef other(x):\n    return lif_step(0, x)\n"
    )
    made = tree(
        **{
            "csrc/scan/scan_simd-inl.h": cpu,
            "csrc/scan/scan.cuh": "void again() { for (;;) h = charge(h); }\n"
            "void back() { again(); for (;;) { g = adjoint(h); } }",
            "tmkt_kernels/ops/scan_triton.py": triton,
            "tmkt_kernels/ops/lif/reference.py": reference,
            "tests/own.py": reference,
        }
    )
    found = {
        device: [[f.name for f in parts] for parts in recurrences.loops(made, device)] for device in recurrences.DEVICES
    }
    assert found == {
        "cpu": [["forward"], ["scan"]],
        "cuda": [["again", "back"]],
        "triton": [["scan_kernel"], ["chunk", "group"]],
        "reference": [["reference"]],
    }


def test_adjoints(tree):
    made = tree(
        **{
            "csrc/lif/lif_neuron.h": "struct N { float charge_adjoint(float g) { return g; } };",
            "csrc/lif/inline.h": "float back(float g, float ds_dh) { return g * ds_dh; }",
            "csrc/lif/pointer.h": "void back(float g) { float* ds_dh = all(); use(lif_adjoint(g, ds_dh[0])); }",
            "tmkt_kernels/reference.py": "def backward(g, u):\n    return g * sg.derivative(u)\n",
            "tmkt_kernels/caller.py": "def backward(g, u):\n    return adjoint(g, sg.derivative(u))\n",
            "tests/own.py": "def adjoint(g):\n    return g\n",
        }
    )
    assert recurrences.adjoints(made) == ["tmkt_kernels/reference.py", "csrc/lif/inline.h", "csrc/lif/lif_neuron.h"]
