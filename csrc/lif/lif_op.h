// tmkt::lif_fwd and tmkt::lif_bwd around a launch function, which the CPU and CUDA files supply.
#pragma once

#include "common/stable.h"
#include "lif/lif_args.h"

namespace tmkt {

using LifForwardLaunch = void (*)(const LifForwardArgs&, const Tensor& x);
using LifBackwardLaunch = void (*)(const LifBackwardArgs&, const Tensor& x);

inline LifArgs lif_args(const Tensor& x, const OptionalTensor& v_init, const OptionalTensor& coefficients,
                        int64_t inner, double a, double b, double c, double v_threshold, double v_reset,
                        int64_t reset) {
  check(x.dim() >= 1 && x.size(0) >= 1, "lif: x: expected [T, ...] with T >= 1");
  check_tensor("lif", "x", x, x.dim(), x);
  check(reset >= 0 && reset < kResets, "lif: reset: unknown number ", reset);
  LifArgs args{};
  args.params = {static_cast<float>(a), static_cast<float>(b), static_cast<float>(c), static_cast<float>(v_threshold),
                 static_cast<float>(v_reset)};
  args.reset = static_cast<Reset>(reset);
  args.kind = float_kind("lif", "x", x.scalar_type());
  args.T = x.size(0);
  args.N = x.numel() / args.T;
  args.x = x.data_ptr();
  check_like_step("lif", "v_init", v_init, x);
  args.v_init = data<float>(v_init);
  args.inner = inner;
  if (coefficients) {
    check_tensor("lif", "coefficients", *coefficients, 2, x);
    check_dtype("lif", "coefficients", *coefficients, ScalarType::Float);
    args.channels = coefficients->size(1);
    check(coefficients->size(0) == kLifParams && args.channels >= 1 && inner >= 1 &&
              args.N % (args.channels * inner) == 0,
          "lif: coefficients: expected [", kLifParams, ", channels] with channels * inner a divisor of N = ", args.N,
          ", got channels = ", args.channels, ", inner = ", inner);
    args.coefficients = data<float>(coefficients);
  }
  return args;
}

template <LifForwardLaunch kLaunch>
std::tuple<Tensor, Tensor, Tensor> lif_fwd(const Tensor& x, const OptionalTensor& v_init,
                                           const OptionalTensor& coefficients, int64_t inner, double a, double b,
                                           double c, double v_threshold, double v_reset, int64_t reset,
                                           int64_t /*surrogate*/, double /*alpha*/, double /*beta*/,
                                           bool /*detach_reset*/, bool return_v) {
  LifForwardArgs args{lif_args(x, v_init, coefficients, inner, a, b, c, v_threshold, v_reset, reset), {}, {}, {}};
  Tensor spikes = new_empty(x, x.sizes(), x.scalar_type());
  Tensor v_last = new_empty(x, x.sizes().slice(1), ScalarType::Float);
  Tensor v_seq = return_v ? new_empty(x, x.sizes(), x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  args.spikes = spikes.data_ptr();
  args.v_last = data<float>(v_last);
  args.v_seq = return_v ? v_seq.data_ptr() : nullptr;
  if (args.N > 0) kLaunch(args, x);
  return {spikes, v_last, v_seq};
}

template <LifBackwardLaunch kLaunch>
std::tuple<Tensor, Tensor, Tensor> lif_bwd(const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last,
                                           const OptionalTensor& grad_v_seq, const Tensor& x,
                                           const OptionalTensor& v_init, const OptionalTensor& coefficients,
                                           int64_t inner, double a, double b, double c, double v_threshold,
                                           double v_reset, int64_t reset, int64_t surrogate, double alpha, double beta,
                                           bool detach_reset, bool need_coefficients) {
  LifBackwardArgs args{};
  static_cast<LifArgs&>(args) = lif_args(x, v_init, coefficients, inner, a, b, c, v_threshold, v_reset, reset);
  check(surrogate >= 0 && surrogate < kSurrogates, "lif: surrogate: unknown number ", surrogate);
  args.surrogate = {static_cast<Surrogate>(surrogate), static_cast<float>(alpha), static_cast<float>(beta)};
  args.detach_reset = detach_reset;
  check_like_sequence("lif", "grad_spikes", grad_spikes, x);
  check_like_sequence("lif", "grad_v_seq", grad_v_seq, x);
  check_like_step("lif", "grad_v_last", grad_v_last, x);
  Tensor grad_x = new_empty(x, x.sizes(), x.scalar_type());
  const IntHeaderOnlyArrayRef step = x.sizes().slice(1);
  Tensor grad_v_init = v_init ? new_empty(x, step, ScalarType::Float) : new_empty(x, {0}, ScalarType::Float);
  Tensor grad_coefficients = new_empty(x, {kLifParams, need_coefficients ? args.N : 0}, ScalarType::Float);
  args.grad_spikes = data(grad_spikes);
  args.grad_v_last = data<float>(grad_v_last);
  args.grad_v_seq = data(grad_v_seq);
  args.grad_x = grad_x.data_ptr();
  args.grad_v_init = v_init ? data<float>(grad_v_init) : nullptr;
  args.grad_coefficients = need_coefficients ? data<float>(grad_coefficients) : nullptr;
  if (args.N > 0) kLaunch(args, x);
  return {grad_x, grad_v_init, grad_coefficients};
}

}  // namespace tmkt
