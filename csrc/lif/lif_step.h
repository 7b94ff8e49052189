// One time step of the neuron and its adjoint; mirrors tmkt_kernels/ops/lif/reference.py, rounding included.
// V is a float, or a vector of floats of the compiler; P is float where all neurons share their parameters, else V.
#pragma once

#include "common/surrogate.h"

namespace tmkt {

// What a spike does to the potential; the numbers are those of tmkt_kernels/ops/lif/reference.py.
// A constant where it is compiled into the loops, as the common ones are on the CPU; elsewhere a uniform run-time
// value.
enum class Reset : int64_t {
  kHard,             // v_reset after a spike
  kSoft,             // v_threshold less after a spike
  kDelayedSubtract,  // v_threshold less at the next charge
  kDelayedZero,      // 0 at the next charge
  kNone,
};
constexpr int64_t kResets = 5;

template <typename P>
struct LifParams {
  P a, b, c;  // h = a v + b x + c
  P v_threshold;
  P v_reset;  // hard reset: potential after a spike; in any case: potential at rest, without v_init
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

// True, or all ones, where the neuron fires: snnTorch's neurons, with the delayed resets, above the threshold only.
template <typename P, typename V>
TMKT_INLINE auto lif_fires(const LifParams<P>& p, Reset reset, V h) {
  return reset >= Reset::kDelayedSubtract ? h > p.v_threshold : h >= p.v_threshold;
}

template <typename P, typename V>
TMKT_INLINE V lif_charge(const LifParams<P>& p, Reset reset, V v, V x) {
  if (reset == Reset::kDelayedZero) v = lif_fires(p, reset, v) ? 0.0f : v;
  const V h = (p.a * v + p.b * x) + p.c;
  if (reset == Reset::kDelayedSubtract) return lif_fires(p, reset, v) ? h - p.v_threshold : h;
  return h;
}

// v after the step: h itself where the reset is delayed.
template <typename P, typename V>
TMKT_INLINE V lif_reset(const LifParams<P>& p, Reset reset, V h) {
  if (reset == Reset::kHard) return lif_fires(p, reset, h) ? p.v_reset : h;
  if (reset == Reset::kSoft) return lif_fires(p, reset, h) ? h - p.v_threshold : h;
  return h;
}

// Gradient of h, given ds/dh and the gradients of the spike and of v after the step; that of h itself (v_seq) is added
// to it. `detach`: none through the reset, and a delayed reset is always detached.
template <typename P, typename V>
TMKT_INLINE V lif_adjoint(const LifParams<P>& p, Reset reset, bool detach, V h, V ds_dh, V grad_s, V grad_v) {
  V through_v = grad_v;
  if (reset == Reset::kHard) through_v = lif_fires(p, reset, h) ? 0.0f : grad_v;
  if (!detach && reset == Reset::kHard) through_v += grad_v * ((p.v_reset - h) * ds_dh);
  if (!detach && reset == Reset::kSoft) through_v += grad_v * (-p.v_threshold * ds_dh);
  return multiply_add(grad_s, ds_dh, through_v);
}

// Gradient of v before the step, given that of h, `g`.
template <typename P, typename V>
TMKT_INLINE V lif_charge_adjoint(const LifParams<P>& p, Reset reset, V v, V g) {
  if (reset == Reset::kDelayedZero) return lif_fires(p, reset, v) ? 0.0f : p.a * g;
  return p.a * g;
}

// What one step adds to the gradients of the parameters; `v` and `x` are those before the step.
template <typename P, typename V>
TMKT_INLINE LifParams<V> lif_parameter_gradients(const LifParams<P>& p, Reset reset, bool detach, V v, V x, V h,
                                                 V ds_dh, V grad_s, V grad_v, V g) {
  const V zero{};
  LifParams<V> grad{g * v, g * x, g, -(grad_s * ds_dh), zero};
  if (reset == Reset::kDelayedZero) grad.a = lif_fires(p, reset, v) ? 0.0f : grad.a;
  if (reset == Reset::kDelayedSubtract) grad.v_threshold -= lif_fires(p, reset, v) ? g : zero;
  if (reset == Reset::kHard) {
    grad.v_reset = lif_fires(p, reset, h) ? grad_v : zero;
    if (!detach) grad.v_threshold -= grad_v * ((p.v_reset - h) * ds_dh);
  }
  if (reset == Reset::kSoft) {
    grad.v_threshold -= lif_fires(p, reset, h) ? grad_v : zero;
    if (!detach) grad.v_threshold += grad_v * (p.v_threshold * ds_dh);
  }
  return grad;
}

}  // namespace tmkt
