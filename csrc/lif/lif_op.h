// tmkt::lif_fwd and tmkt::lif_bwd: checks and outputs around a backend, which the CPU and CUDA files define. In every
// operator a backend is a class with forward(args) and backward(args), constructed from a tensor on its device.
#pragma once

#include "lif/lif_args.h"
#include "scan/scan_op.h"

namespace tmkt {

inline LifArgs lif_args(double a, double b, double c, double v_threshold, double v_reset, int64_t reset) {
  check(reset >= 0 && reset < kResets, "lif: reset: unknown number ", reset);
  return {.params = {.a = static_cast<float>(a),
                     .b = static_cast<float>(b),
                     .c = static_cast<float>(c),
                     .v_threshold = static_cast<float>(v_threshold),
                     .v_reset = static_cast<float>(v_reset)},
          .reset = static_cast<Reset>(reset),
          .coefficients = nullptr,
          .channels = 0,
          .inner = 1};
}

inline void set_coefficients(LifArgs& lif, const ScanArgs& scan, const Tensor& x, const OptionalTensor& coefficients,
                             int64_t inner) {
  lif.inner = inner;
  if (!coefficients) return;
  check_tensor("lif", "coefficients", *coefficients, 2, x);
  check_dtype("lif", "coefficients", *coefficients, ScalarType::Float);
  lif.channels = coefficients->size(1);
  check(coefficients->size(0) == kLifParams && lif.channels >= 1 && inner >= 1 && scan.N % (lif.channels * inner) == 0,
        "lif: coefficients: expected [", kLifParams, ", channels] with channels * inner a divisor of N = ", scan.N,
        ", got channels = ", lif.channels, ", inner = ", inner);
  lif.coefficients = data<float>(coefficients);
}

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor> lif_fwd(const Tensor& x, const OptionalTensor& v_init,
                                           const OptionalTensor& coefficients, int64_t inner, double a, double b,
                                           double c, double v_threshold, double v_reset, int64_t reset,
                                           int64_t /*surrogate*/, double /*alpha*/, double /*beta*/,
                                           bool /*detach_reset*/, bool return_v) {
  LifForwardArgs args{};
  set_sequence(args, "lif", x, v_init);
  args.lif = lif_args(a, b, c, v_threshold, v_reset, reset);
  set_coefficients(args.lif, args, x, coefficients, inner);
  Tensor spikes = new_empty(x, x.sizes(), x.scalar_type());
  args.spikes = spikes.data_ptr();
  const auto [v_last, v_seq] = new_potentials(args, x, return_v);
  if (args.N > 0) Backend(x).forward(args);
  return {spikes, v_last, v_seq};
}

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor> lif_bwd(const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last,
                                           const OptionalTensor& grad_v_seq, const Tensor& x,
                                           const OptionalTensor& v_init, const OptionalTensor& coefficients,
                                           int64_t inner, double a, double b, double c, double v_threshold,
                                           double v_reset, int64_t reset, int64_t surrogate, double alpha, double beta,
                                           bool detach_reset, bool need_coefficients) {
  LifBackwardArgs args{};
  set_sequence(args, "lif", x, v_init);
  args.lif = lif_args(a, b, c, v_threshold, v_reset, reset);
  set_coefficients(args.lif, args, x, coefficients, inner);
  args.surrogate = surrogate_shape("lif", surrogate, alpha, beta);
  args.detach_reset = detach_reset;
  check_like_sequence("lif", "grad_spikes", grad_spikes, x);
  args.grad_spikes = data(grad_spikes);
  set_potential_gradients(args, "lif", x, grad_v_last, grad_v_seq);
  const auto [grad_x, grad_v_init] = new_gradients(args, x, v_init);
  Tensor grad_coefficients = new_empty(x, {kLifParams, need_coefficients ? args.N : 0}, ScalarType::Float);
  args.grad_coefficients = need_coefficients ? data<float>(grad_coefficients) : nullptr;
  if (args.N > 0) Backend(x).backward(args);
  return {grad_x, grad_v_init, grad_coefficients};
}

}  // namespace tmkt
