// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd around a backend, which the CPU and CUDA files supply.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "lif/lif_op.h"

namespace tmkt {

inline void check_channels(const char* name, const OptionalTensor& tensor, int64_t channels, const Tensor& x) {
  if (!tensor) return;
  check_tensor("bn_lif", name, *tensor, 1, x);
  check_dtype("bn_lif", name, *tensor, ScalarType::Float);
  check(tensor->size(0) == channels, "bn_lif: ", name, ": expected ", channels, " channels, got ", tensor->size(0));
}

inline void check_bn(const Tensor& x, int64_t channels, int64_t inner) {
  check(x.numel() == 0 || (channels >= 1 && inner >= 1 && (x.numel() / x.size(0)) % (channels * inner) == 0),
        "bn_lif: x: expected steps of a multiple of channels * inner = ", channels, " * ", inner, " values");
}

inline void check_pool(const Tensor& x, int64_t channels, int64_t inner, int64_t pool_width) {
  check(pool_width == 0 ||
            (x.dim() == 5 && x.size(2) == channels && x.size(4) == pool_width && x.size(3) * pool_width == inner),
        "bn_lif: x: expected contiguous [T, B, channels, height, pool_width] to pool");
}

// Empty spikes of x, pooled or not.
inline Tensor new_spikes(const Tensor& x, int64_t pool_width) {
  if (pool_width == 0) return new_empty(x, x.sizes(), x.scalar_type());
  return new_empty(x, {x.size(0), x.size(1), x.size(2), x.size(3) / 2, pool_width / 2}, x.scalar_type());
}

// The gradients of these.
inline void check_like_spikes(const OptionalTensor& grad, const Tensor& x, int64_t pool_width) {
  if (pool_width == 0) return check_like_sequence("bn_lif", "grad_spikes", grad, x);
  if (!grad) return;
  check_tensor("bn_lif", "grad_spikes", *grad, 5, x);
  check_dtype("bn_lif", "grad_spikes", *grad, x.scalar_type());
  check(grad->sizes().slice(0, 3).equals(x.sizes().slice(0, 3)) && grad->size(3) == x.size(3) / 2 &&
            grad->size(4) == pool_width / 2,
        "bn_lif: grad_spikes: expected the shape of the pooled spikes");
}

// What a backend offers: forward(args, prepare) and backward(args, prepare), all of it; pointers are on its device.
template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_lif_fwd(
    const Tensor& x, const OptionalTensor& v_init, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& mean, const OptionalTensor& var, int64_t channels, int64_t inner, int64_t pool_width,
    double eps, double a, double b, double c, double v_threshold, double v_reset, int64_t reset, int64_t /*surrogate*/,
    double /*alpha*/, double /*beta*/, bool /*detach_reset*/, bool return_v) {
  BnLifForwardArgs args{};
  static_cast<LifArgs&>(args) = lif_args(x, v_init, {}, 1, a, b, c, v_threshold, v_reset, reset);
  check_bn(x, channels, inner);
  check_pool(x, channels, inner, pool_width);
  for (const auto& [name, tensor] : {std::pair{"weight", &weight}, {"bias", &bias}, {"mean", &mean}, {"var", &var}}) {
    check_channels(name, *tensor, channels, x);
  }
  check(mean.has_value() == var.has_value(), "bn_lif: mean and var: expected both or none");
  Tensor spikes = new_spikes(x, pool_width);
  Tensor v_last = new_empty(x, x.sizes().slice(1), ScalarType::Float);
  Tensor v_seq = return_v ? new_empty(x, x.sizes(), x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  const int64_t own = mean ? 0 : channels;  // statistics of the batch are outputs
  Tensor batch_mean = new_empty(x, {own}, ScalarType::Float), batch_var = new_empty(x, {own}, ScalarType::Float);
  Tensor table = new_empty(x, {2, channels}, ScalarType::Float);  // scale, and bias if there is none
  args.spikes = spikes.data_ptr();
  args.v_last = data<float>(v_last);
  args.v_seq = return_v ? v_seq.data_ptr() : nullptr;
  float *scale = data<float>(table), *zero_bias = bias ? nullptr : scale + channels;
  args.bn = {
      channels,  inner, mean ? data<float>(mean) : data<float>(batch_mean), scale, bias ? data<float>(bias) : zero_bias,
      pool_width};
  const BnPrepare prepare{data<float>(weight),
                          static_cast<float>(eps),
                          mean ? data<float>(var) : data<float>(batch_var),
                          mean ? nullptr : data<float>(batch_mean),
                          mean ? nullptr : data<float>(batch_var),
                          scale,
                          zero_bias};
  if (args.N > 0) {
    Backend(x).forward(args, prepare);
  } else {  // the statistics of nothing
    torch::stable::zero_(batch_mean);
    torch::stable::zero_(batch_var);
  }
  return {spikes, v_last, v_seq, batch_mean, batch_var};
}

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor> bn_lif_bwd(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last, const OptionalTensor& grad_v_seq,
    const Tensor& x, const OptionalTensor& v_init, const OptionalTensor& weight, const OptionalTensor& bias,
    const Tensor& mean, const Tensor& var, bool batch_statistics, int64_t channels, int64_t inner, int64_t pool_width,
    double eps, double a, double b, double c, double v_threshold, double v_reset, int64_t reset, int64_t surrogate,
    double alpha, double beta, bool detach_reset) {
  BnLifBackwardArgs args{};
  static_cast<LifArgs&>(args) = lif_args(x, v_init, {}, 1, a, b, c, v_threshold, v_reset, reset);
  check_bn(x, channels, inner);
  check_pool(x, channels, inner, pool_width);
  check_channels("weight", weight, channels, x);
  check_channels("bias", bias, channels, x);
  check_channels("mean", mean, channels, x);
  check_channels("var", var, channels, x);
  check(surrogate >= 0 && surrogate < kSurrogates, "bn_lif: surrogate: unknown number ", surrogate);
  args.surrogate = {static_cast<Surrogate>(surrogate), static_cast<float>(alpha), static_cast<float>(beta)};
  args.detach_reset = detach_reset;
  check_like_spikes(grad_spikes, x, pool_width);
  check_like_sequence("bn_lif", "grad_v_seq", grad_v_seq, x);
  check_like_step("bn_lif", "grad_v_last", grad_v_last, x);
  Tensor grad_x = new_empty(x, x.sizes(), x.scalar_type());
  Tensor grad_v_init = v_init ? new_empty(x, x.sizes().slice(1), ScalarType::Float)  //
                              : new_empty(x, {0}, ScalarType::Float);
  Tensor grad_weight = new_empty(x, {channels}, ScalarType::Float);
  Tensor grad_bias = new_empty(x, {channels}, ScalarType::Float);
  Tensor table = new_empty(x, {4, channels}, ScalarType::Float);  // scale, bias if there is none, g_mean, slope
  args.grad_spikes = data(grad_spikes);
  args.grad_v_last = data<float>(grad_v_last);
  args.grad_v_seq = data(grad_v_seq);
  args.grad_x = grad_x.data_ptr();
  float *scale = data<float>(table), *zero_bias = bias ? nullptr : scale + channels;
  args.bn = {channels, inner, data<float>(mean), scale, bias ? data<float>(bias) : zero_bias, pool_width};
  args.grad_v_init = v_init ? data<float>(grad_v_init) : nullptr;
  args.batch_statistics = batch_statistics;
  args.grad_weight = data<float>(grad_weight);
  args.grad_bias = data<float>(grad_bias);
  args.g_mean = scale + 2 * channels;
  args.slope = scale + 3 * channels;
  const BnPrepare prepare{
      data<float>(weight), static_cast<float>(eps), data<float>(var), nullptr, nullptr, scale, zero_bias};
  Backend(x).backward(args, prepare);
  return {grad_x, grad_v_init, grad_weight, grad_bias};
}

}  // namespace tmkt
