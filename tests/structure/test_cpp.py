"""Functions and calls in C++, from tokens."""

from tests.structure import cpp

CPP = """
#pragma once
#define LOOP(x) for (;;) { charge(x); }
namespace tmkt {
enum class Kind { kOne, kTwo };
constexpr int kTable[] = {1, 2};
template <typename T, int K = 2>
struct Neuron : Base {
  T value{};
  explicit Neuron(T value) : value{value} {}
  // for (;;) charge(v);
  T charge(T v, std::pair<T, T> x = {1, 2}) const { return v + x.first; }
  bool operator()(int a) const { return a > 0; }
  bool operator<(const Neuron& other) const { return value < other.value; }
};
namespace {
template <typename F>
__attribute__((always_inline)) inline auto walk(const F& f, void (*g)(int, int), int64_t n) -> decltype(f(n)) {
  const char* text = "for (;;) { charge(}";
  return f(n);
}
}  // namespace
__global__ void __launch_bounds__(64) kernel() {
}
extern "C" int entry(int a) { return a; }
extern "C" {
int another(int a) { return a; }
}
}
"""


def test_cpp_functions():
    found = [(f.name, f.parameters, f.lines) for f in cpp.functions(CPP)]
    assert found == [
        ("Neuron.Neuron", 1, 1),
        ("Neuron.charge", 2, 1),
        ("Neuron.operator()", 1, 1),
        ("Neuron.operator<", 1, 1),
        ("walk", 3, 5),
        ("kernel", 0, 2),
        ("entry", 1, 1),
        ("another", 1, 1),
    ]


def test_cpp_calls_in_loops():
    body = cpp.tokens(
        "a(); for (int i = b(); i < n; ++i) c(d()); while (e()) { for (;;) if (x < (y)) f<T, 2>(); } g();"
    )
    assert [name for name, looped in cpp.calls(body) if looped] == ["c", "d", "f"]
    assert [name for name, looped in cpp.calls(body) if not looped] == ["a", "b", "e", "g"]
