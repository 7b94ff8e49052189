// One time step of the neuron and its adjoint; mirrors tmkt_kernels/lif/reference.py, rounding included.
#pragma once

#include "common/surrogate.h"

namespace tmkt {

enum class Reset { kHard, kSoft };

struct LifParams {
  float a, b, c;  // h = a v + b x + c
  float v_threshold;
  float v_reset;     // hard reset: potential after a spike; either way: potential at rest, without v_init
  float alpha;       // sharpness of the surrogate
  float reset_grad;  // 1: gradients flow through the reset; 0: detached
};

template <Reset kReset>
struct LifStep {
  static TMKT_INLINE float charge(const LifParams& p, float v, float x) { return (p.a * v + p.b * x) + p.c; }

  static TMKT_INLINE bool fires(const LifParams& p, float h) { return h >= p.v_threshold; }

  static TMKT_INLINE float reset(const LifParams& p, float h) {
    const bool fired = fires(p, h);
    if constexpr (kReset == Reset::kHard) return fired ? p.v_reset : h;
    return h - (fired ? p.v_threshold : 0.0f);
  }

  // Gradient of h, given those of the spike, of v after reset and of h itself (v_seq).
  template <Surrogate kSurrogate>
  static TMKT_INLINE float adjoint(const LifParams& p, float h, float grad_s, float grad_v, float grad_h) {
    const float ds_dh = surrogate_derivative<kSurrogate>(h - p.v_threshold, p.alpha);
    float dv_dh;
    if constexpr (kReset == Reset::kHard) {
      dv_dh = (fires(p, h) ? 0.0f : 1.0f) + p.reset_grad * (p.v_reset - h) * ds_dh;
    } else {
      dv_dh = 1.0f - p.reset_grad * p.v_threshold * ds_dh;
    }
    return grad_s * ds_dh + grad_v * dv_dh + grad_h;
  }
};

}  // namespace tmkt
