// One time step of the neuron and its adjoint; mirrors tmkt_kernels/lif/reference.py, rounding included.
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

TMKT_INLINE float lif_charge(const LifParams& p, float v, float x) { return (p.a * v + p.b * x) + p.c; }

TMKT_INLINE bool lif_fires(const LifParams& p, float h) { return h >= p.v_threshold; }

TMKT_INLINE float lif_reset(const LifParams& p, Reset reset, float h) {
  const float after = reset == Reset::kHard ? p.v_reset : h - p.v_threshold;
  return lif_fires(p, h) ? after : h;
}

// Gradient of h, given those of the spike, of v after reset and of h itself (v_seq); `detach`: none through the reset.
template <Surrogate kSurrogate>
TMKT_INLINE float lif_adjoint(const LifParams& p, Reset reset, bool detach, float h, float grad_s, float grad_v,
                              float grad_h) {
  const float ds_dh = surrogate_derivative<kSurrogate>(h - p.v_threshold, p.alpha);
  float through_v = reset == Reset::kHard && lif_fires(p, h) ? 0.0f : grad_v;
  if (!detach) through_v += grad_v * ((reset == Reset::kHard ? p.v_reset - h : -p.v_threshold) * ds_dh);
  return grad_s * ds_dh + through_v + grad_h;
}

}  // namespace tmkt
