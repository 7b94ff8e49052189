// A neuron outside this library, run by the loops of csrc/scan/ like a new operator: a current and a potential, each
// with its own leak. Its spikes and gradients are compared with plain loops in double. Also, a value without a case in
// a switch is an error.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "scan/scan_simd-inl.h"

using namespace tmkt;
using namespace tmkt::TMKT_SIMD;

namespace {

constexpr int64_t kT = 7, kN = 3 * 4 * kLanes + 5;
constexpr float kLeakOfCurrent = 0.75f, kLeak = 0.5f, kThreshold = 1.0f;
constexpr SurrogateShape kShape{.surrogate = Surrogate::kAtan, .alpha = 2.0f, .beta = 1.0f};

struct TwoStateNeuron {
  struct State {
    Floats current, v;
  };
  using Charged = State;

  State rest() const { return {Floats{}, Floats{}}; }
  Charged charge(State before, Floats x) const {
    const Floats current = kLeakOfCurrent * before.current + x;
    return {current, kLeak * before.v + current};
  }
  Ints fires(Charged h) const { return h.v >= kThreshold; }
  static Floats& potential(Charged& h) { return h.v; }
  State after(Charged h) const { return {h.current, fires(h) ? h.v - kThreshold : h.v}; }
  Floats above_threshold(Charged h) const { return h.v - kThreshold; }
  Charged adjoint(Charged, Floats ds_dh, Floats grad_s, State grad) const {
    return {grad.current, grad_s * ds_dh + grad.v};
  }
  Floats current_gradient(Charged g) const { return g.current + g.v; }
  template <typename Before>
  State charge_adjoint(const Before&, Charged g) const {
    return {kLeakOfCurrent * (g.current + g.v), kLeak * g.v};
  }
};

struct TwoStateNeurons {
  TwoStateNeuron operator[](int) const { return {}; }
};

struct Result {
  std::vector<float> spikes, v_seq, last, grad_x, grad_init;
};

Result by_scan(const std::vector<float>& x, const std::vector<float>& init, const std::vector<float>& grad,
               const std::vector<float>& grad_last) {
  Result out{.spikes = x, .v_seq = x, .last = init, .grad_x = x, .grad_init = init};
  ScanForwardArgs forward{};
  forward.T = kT;
  forward.N = kN;
  forward.x = x.data();
  forward.v_init = init.data();
  forward.v_last = out.last.data();
  forward.v_seq = out.v_seq.data();
  ScanBackwardArgs backward{};
  static_cast<ScanArgs&>(backward) = forward;
  backward.surrogate = kShape;
  backward.grad_v_last = grad_last.data();
  backward.grad_v_init = out.grad_init.data();
  std::vector<CacheLine> history(2 * kT * 4 * kLanes / 16 + 1);  // of two vectors each
  RowPrefetcher<float> rows(forward, nullptr, 0, 4 * kLanes), rows_back(forward, grad.data(), 0, 4 * kLanes);
  for_each_tile<LaneOrder::kContiguous, 4>(false, 0, kN, [&](auto vectors, auto lanes) {
    constexpr int K = decltype(vectors)::value;
    scan_forward<float, K, false>(forward, lanes, TwoStateNeurons{}, PlainInput{},
                                  StoreSpikes<float>{out.spikes.data(), kN}, rows);
    StoreGradients<float> sink{out.grad_x.data(), kN};
    scan_backward<float, BackwardVariant::kAnything, K>(backward, lanes, TwoStateNeurons{}, PlainInput{},
                                                        LoadSpikeGradients<float, false>{grad.data(), kN}, sink,
                                                        rows_back, history[0].values);
  });
  return out;
}

Result by_plain_loops(const std::vector<float>& x, const std::vector<float>& init, const std::vector<float>& grad,
                      const std::vector<float>& grad_last) {
  Result out{.spikes = x, .v_seq = x, .last = init, .grad_x = x, .grad_init = init};
  for (int64_t n = 0; n < kN; ++n) {
    double current = init[n], v = init[kN + n], h[kT];
    for (int64_t t = 0; t < kT; ++t) {
      current = kLeakOfCurrent * current + x[t * kN + n];
      h[t] = kLeak * v + current;
      const bool fires = h[t] >= kThreshold;
      v = fires ? h[t] - kThreshold : h[t];
      out.spikes[t * kN + n] = fires ? 1.0f : 0.0f;
      out.v_seq[t * kN + n] = static_cast<float>(h[t]);
    }
    out.last[n] = static_cast<float>(current);
    out.last[kN + n] = static_cast<float>(v);
    double grad_current = grad_last[n], grad_v = grad_last[kN + n];
    for (int64_t t = kT - 1; t >= 0; --t) {
      const double u = 1.57079632679 * kShape.alpha * (h[t] - kThreshold);
      const double grad_h = grad[t * kN + n] * 0.5 * kShape.alpha / (1.0 + u * u) + grad_v;
      out.grad_x[t * kN + n] = static_cast<float>(grad_current + grad_h);
      grad_current = kLeakOfCurrent * (grad_current + grad_h);
      grad_v = kLeak * grad_h;
    }
    out.grad_init[n] = static_cast<float>(grad_current);
    out.grad_init[kN + n] = static_cast<float>(grad_v);
  }
  return out;
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "scan: %s\n", what);
  std::exit(1);
}

void require_close(const std::vector<float>& a, const std::vector<float>& b, float tolerance, const char* what) {
  for (size_t i = 0; i < a.size(); ++i) require(std::fabs(a[i] - b[i]) <= tolerance, what);
}

// Numbers with few digits, so that no sum of these loops rounds.
std::vector<float> numbers(int64_t count, int64_t seed) {
  std::vector<float> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<float>((i * 37 + seed * 11) % 41 - 14) / 16.0f;
  return result;
}

template <typename F>
bool throws(F f) {
  try {
    f();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  const auto x = numbers(kT * kN, 1), init = numbers(2 * kN, 2), grad = numbers(kT * kN, 3),
             grad_last = numbers(2 * kN, 4);
  const Result scan = by_scan(x, init, grad, grad_last), plain = by_plain_loops(x, init, grad, grad_last);
  float fired = 0.0f;
  for (const float spike : plain.spikes) fired += spike;
  require(fired > 50.0f && fired < 0.9f * plain.spikes.size(), "too few or too many spikes for a test");
  require_close(scan.spikes, plain.spikes, 0.0f, "spikes differ");
  require_close(scan.v_seq, plain.v_seq, 0.0f, "potentials differ");
  require_close(scan.last, plain.last, 0.0f, "last states differ");
  require_close(scan.grad_x, plain.grad_x, 1e-5f, "gradients of x differ");
  require_close(scan.grad_init, plain.grad_init, 1e-5f, "gradients of the first state differ");
  require(throws([] { with_float(static_cast<FloatKind>(3), [](auto) {}); }), "an unknown FloatKind is no error");
  std::printf("scan: a neuron of two states, %d lanes\n", kLanes);
  return 0;
}
