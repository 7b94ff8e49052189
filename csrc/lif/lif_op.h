// tmkt::lif_fwd and tmkt::lif_bwd around a launch function, which the CPU and CUDA files supply.
#pragma once

#include "common/stable.h"
#include "lif/lif_args.h"

namespace tmkt {

using LifForwardLaunch = void (*)(const LifForwardArgs&, const Tensor& x);
using LifBackwardLaunch = void (*)(const LifBackwardArgs&, const Tensor& x);

inline LifArgs lif_args(const Tensor& x, const OptionalTensor& v_init, double a, double b, double c, double v_threshold,
                        std::optional<double> v_reset, double alpha) {
  check_tensor("lif", "x", x, 2, x);
  STD_TORCH_CHECK(x.size(0) >= 1, "lif: x: expected [T, N] with T >= 1, got T = 0");
  if (v_init) {
    check_tensor("lif", "v_init", *v_init, 1, x);
    check_dtype("lif", "v_init", *v_init, ScalarType::Float);
    STD_TORCH_CHECK(v_init->size(0) == x.size(1), "lif: v_init: expected N = ", x.size(1), ", got ", v_init->size(0));
  }
  const float rest = static_cast<float>(v_reset.value_or(0.0));
  const LifParams params{
      static_cast<float>(a),    static_cast<float>(b), static_cast<float>(c), static_cast<float>(v_threshold), rest,
      static_cast<float>(alpha)};
  return {params,
          v_reset ? Reset::kHard : Reset::kSoft,
          float_kind("lif", "x", x.scalar_type()),
          x.size(0),
          x.size(1),
          x.data_ptr(),
          data<float>(v_init)};
}

template <LifForwardLaunch kLaunch>
std::tuple<Tensor, Tensor, Tensor> lif_fwd(const Tensor& x, const OptionalTensor& v_init, double a, double b, double c,
                                           double v_threshold, std::optional<double> v_reset, int64_t /*surrogate*/,
                                           double alpha, bool /*detach_reset*/, bool return_v) {
  LifForwardArgs args{lif_args(x, v_init, a, b, c, v_threshold, v_reset, alpha), {}, {}, {}};
  Tensor spikes = new_empty(x, {args.T, args.N}, x.scalar_type());
  Tensor v_last = new_empty(x, {args.N}, ScalarType::Float);
  Tensor v_seq = return_v ? new_empty(x, {args.T, args.N}, x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  args.spikes = spikes.data_ptr();
  args.v_last = data<float>(v_last);
  args.v_seq = return_v ? v_seq.data_ptr() : nullptr;
  if (args.N > 0) kLaunch(args, x);
  return {spikes, v_last, v_seq};
}

template <LifBackwardLaunch kLaunch>
std::tuple<Tensor, Tensor> lif_bwd(const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last,
                                   const OptionalTensor& grad_v_seq, const Tensor& x, const OptionalTensor& v_init,
                                   double a, double b, double c, double v_threshold, std::optional<double> v_reset,
                                   int64_t surrogate, double alpha, bool detach_reset) {
  LifBackwardArgs args{lif_args(x, v_init, a, b, c, v_threshold, v_reset, alpha), {}, {}, {}, {}, {}, {}, {}};
  STD_TORCH_CHECK(surrogate >= 0 && surrogate < kSurrogates, "lif: surrogate: unknown number ", surrogate);
  args.surrogate = static_cast<Surrogate>(surrogate);
  args.detach_reset = detach_reset;
  for (const auto& [name, grad] : {std::pair{"grad_spikes", &grad_spikes}, std::pair{"grad_v_seq", &grad_v_seq}}) {
    if (!*grad) continue;
    check_tensor("lif", name, **grad, 2, x);
    check_dtype("lif", name, **grad, x.scalar_type());
    STD_TORCH_CHECK((*grad)->size(0) == args.T && (*grad)->size(1) == args.N, "lif: ", name, ": expected x's shape");
  }
  if (grad_v_last) {
    check_tensor("lif", "grad_v_last", *grad_v_last, 1, x);
    check_dtype("lif", "grad_v_last", *grad_v_last, ScalarType::Float);
    STD_TORCH_CHECK(grad_v_last->size(0) == args.N, "lif: grad_v_last: expected N = ", args.N);
  }
  Tensor grad_x = new_empty(x, {args.T, args.N}, x.scalar_type());
  Tensor grad_v_init = new_empty(x, {v_init ? args.N : 0}, ScalarType::Float);
  args.grad_spikes = data(grad_spikes);
  args.grad_v_last = data<float>(grad_v_last);
  args.grad_v_seq = data(grad_v_seq);
  args.grad_x = grad_x.data_ptr();
  args.grad_v_init = v_init ? data<float>(grad_v_init) : nullptr;
  if (args.N > 0) kLaunch(args, x);
  return {grad_x, grad_v_init};
}

}  // namespace tmkt
