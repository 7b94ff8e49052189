// The LIF neuron: one time step and its adjoint; mirrors tmkt_kernels/ops/lif/reference.py, rounding included.
// Another neuron is another struct with these members, which the loops of csrc/scan/ call.
#pragma once

#include "common/surrogate.h"

namespace tmkt {

// Effect of a spike on the potential. The numbers are those of tmkt_kernels/ops/lif/recurrence.py.
enum class Reset : int64_t {
  kHard,             // v becomes v_reset
  kSoft,             // v_threshold is subtracted
  kDelayedSubtract,  // v_threshold is subtracted at the next charge
  kDelayedZero,      // v becomes 0 at the next charge
  kNone,
};
constexpr int64_t kResets = 5;

template <typename P>
struct LifParams {
  P a, b, c;  // h = a v + b x + c
  P v_threshold;
  P v_reset;  // potential after a spike (hard reset), and at rest without v_init (any reset)
};
constexpr int kLifParams = 5;

template <typename P>
TMKT_INLINE void add(LifParams<P>& sum, const LifParams<P>& more) {
  sum.a += more.a;
  sum.b += more.b;
  sum.c += more.c;
  sum.v_threshold += more.v_threshold;
  sum.v_reset += more.v_reset;
}

// V is a float, or a compiler vector of floats. P is float if all neurons share their parameters, else V. R and D are
// Reset and bool, or constants of these types (std::integral_constant), which need no test in the loops.
template <typename V, typename P, typename R, typename D = std::true_type>
struct LifNeuron {
  using State = V;    // carried from step to step: the potential v after the reset
  using Charged = V;  // determines spike and next state, and is kept for backward: the potential h before the reset
  using Parameters = LifParams<V>;  // gradients of the parameters

  LifParams<P> params;
  [[no_unique_address]] R reset;
  [[no_unique_address]] D detach;  // no gradient through the reset; a delayed reset never has one

  TMKT_INLINE State rest() const { return broadcast<V>(params.v_reset); }

  TMKT_INLINE Charged charge(State v, V x) const {
    if (reset == Reset::kDelayedZero) v = fires(v) ? 0.0f : v;
    const V h = (params.a * v + params.b * x) + params.c;
    if (reset == Reset::kDelayedSubtract) return fires(v) ? h - params.v_threshold : h;
    return h;
  }

  // True, or all ones, where the neuron fires. With delayed resets (snnTorch's neurons), only above the threshold.
  TMKT_INLINE auto fires(Charged h) const {
    return reset >= Reset::kDelayedSubtract ? h > params.v_threshold : h >= params.v_threshold;
  }

  // The part of h that the caller sees as v_seq.
  static TMKT_INLINE V& potential(Charged& h) { return h; }

  // State after the step; with a delayed reset, h itself.
  TMKT_INLINE State after(Charged h) const {
    if (reset == Reset::kHard) return fires(h) ? params.v_reset : h;
    if (reset == Reset::kSoft) return fires(h) ? h - params.v_threshold : h;
    return h;
  }

  // Argument of the surrogate.
  TMKT_INLINE V above_threshold(Charged h) const { return h - params.v_threshold; }

  // Gradient of h, given ds/dh and the gradients of the spike and of v after the step. The gradient of v_seq is added
  // to it.
  TMKT_INLINE Charged adjoint(Charged h, V ds_dh, V grad_s, State grad_v) const {
    V through_v = grad_v;
    if (reset == Reset::kHard) through_v = fires(h) ? 0.0f : grad_v;
    if (!detach && reset == Reset::kHard) through_v += grad_v * ((params.v_reset - h) * ds_dh);
    if (!detach && reset == Reset::kSoft) through_v += grad_v * (-params.v_threshold * ds_dh);
    return multiply_add(grad_s, ds_dh, through_v);
  }

  // Gradient of the current x, given the gradient `g` of h.
  TMKT_INLINE V current_gradient(Charged g) const { return params.b * g; }

  // Gradient of the state before the step. `before()` computes that state, only where needed.
  template <typename Before>
  TMKT_INLINE State charge_adjoint(const Before& before, Charged g) const {
    if (reset == Reset::kDelayedZero) return fires(before()) ? 0.0f : params.a * g;
    return params.a * g;
  }

  // Contribution of one step to the gradients of the parameters; `v` and `x` are from before the step.
  TMKT_INLINE Parameters parameter_gradients(State v, V x, Charged h, V ds_dh, V grad_s, State grad_v,
                                             Charged g) const {
    const V zero{};
    Parameters grad{.a = g * v, .b = g * x, .c = g, .v_threshold = -(grad_s * ds_dh), .v_reset = zero};
    if (reset == Reset::kDelayedZero) grad.a = fires(v) ? 0.0f : grad.a;
    if (reset == Reset::kDelayedSubtract) grad.v_threshold -= fires(v) ? g : zero;
    if (reset == Reset::kHard) {
      grad.v_reset = fires(h) ? grad_v : zero;
      if (!detach) grad.v_threshold -= grad_v * ((params.v_reset - h) * ds_dh);
    }
    if (reset == Reset::kSoft) {
      grad.v_threshold -= fires(h) ? grad_v : zero;
      if (!detach) grad.v_threshold += grad_v * (params.v_threshold * ds_dh);
    }
    return grad;
  }
};

}  // namespace tmkt
