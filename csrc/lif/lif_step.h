// One time step of the neuron and its adjoint; mirrors tmkt_kernels/lif/reference.py, rounding included.
// V is a float, or a vector of floats of the compiler.
#pragma once

#include "common/surrogate.h"

namespace tmkt {

// A constant on the CPU, where it is compiled into the loops; a uniform run-time value on CUDA.
enum class Reset { kHard, kSoft };

struct LifParams {
  float a, b, c;  // h = a v + b x + c
  float v_threshold;
  float v_reset;  // hard reset: potential after a spike; either way: potential at rest, without v_init
  float alpha;    // sharpness of the surrogate
};

template <typename V>
TMKT_INLINE V lif_charge(const LifParams& p, V v, V x) {
  return (p.a * v + p.b * x) + p.c;
}

// True, or all ones, where the neuron fires.
template <typename V>
TMKT_INLINE auto lif_fires(const LifParams& p, V h) {
  return h >= p.v_threshold;
}

template <typename V>
TMKT_INLINE V lif_reset(const LifParams& p, Reset reset, V h) {
  if (reset == Reset::kHard) return lif_fires(p, h) ? p.v_reset : h;
  return lif_fires(p, h) ? h - p.v_threshold : h;
}

template <typename V>
TMKT_INLINE V lif_ds_dh(const LifParams& p, Surrogate surrogate, V h) {
  return surrogate_derivative<V>(surrogate, h - p.v_threshold, p.alpha);
}

// Gradient of h, given ds/dh and the gradients of the spike, of v after reset and of h itself (v_seq);
// `detach`: none through the reset.
template <typename V>
TMKT_INLINE V lif_adjoint(const LifParams& p, Reset reset, bool detach, V h, V ds_dh, V grad_s, V grad_v, V grad_h) {
  V through_v = grad_v;
  if (reset == Reset::kHard) through_v = lif_fires(p, h) ? 0.0f : grad_v;
  if (!detach) {
    if (reset == Reset::kHard) {
      through_v += grad_v * ((p.v_reset - h) * ds_dh);
    } else {
      through_v += grad_v * (-p.v_threshold * ds_dh);
    }
  }
  return grad_s * ds_dh + through_v + grad_h;
}

}  // namespace tmkt
