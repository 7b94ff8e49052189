// tmkt::bn_lif_fwd and tmkt::bn_lif_bwd around a backend, which the CPU and CUDA files define.
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

// Uninitialised spikes of x, pooled or not.
inline Tensor new_spikes(const Tensor& x, int64_t pool_width) {
  if (pool_width == 0) return new_empty(x, x.sizes(), x.scalar_type());
  return new_empty(x, {x.size(0), x.size(1), x.size(2), x.size(3) / 2, pool_width / 2}, x.scalar_type());
}

// Gradients of the spikes.
inline void check_like_spikes(const OptionalTensor& grad, const Tensor& x, int64_t pool_width) {
  if (pool_width == 0) return check_like_sequence("bn_lif", "grad_spikes", grad, x);
  if (!grad) return;
  check_tensor("bn_lif", "grad_spikes", *grad, 5, x);
  check_dtype("bn_lif", "grad_spikes", *grad, x.scalar_type());
  check(grad->sizes().slice(0, 3).equals(x.sizes().slice(0, 3)) && grad->size(3) == x.size(3) / 2 &&
            grad->size(4) == pool_width / 2,
        "bn_lif: grad_spikes: expected the shape of the pooled spikes");
}

// Sets x, its sizes and its channels, for forward and backward.
inline void set_input(ScanArgs& args, BnArgs& bn, const Tensor& x, const OptionalTensor& v_init) {
  set_sequence(args, "bn_lif", x, v_init);
  check_bn(x, bn.channels, bn.inner);
  check_pool(x, bn.channels, bn.inner, bn.pool_width);
}

template <typename Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_lif_fwd(
    const Tensor& x, const OptionalTensor& v_init, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& mean, const OptionalTensor& var, int64_t channels, int64_t inner, int64_t pool_width,
    double eps, double a, double b, double c, double v_threshold, double v_reset, int64_t reset, int64_t /*surrogate*/,
    double /*alpha*/, double /*beta*/, bool /*detach_reset*/, bool return_v) {
  BnLifForwardArgs args{};
  args.bn = {.channels = channels, .inner = inner, .pool_width = pool_width};
  args.lif = lif_args(a, b, c, v_threshold, v_reset, reset);
  set_input(args, args.bn, x, v_init);
  for (const auto& [name, tensor] : {std::pair{"weight", &weight}, {"bias", &bias}, {"mean", &mean}, {"var", &var}}) {
    check_channels(name, *tensor, channels, x);
  }
  check(mean.has_value() == var.has_value(), "bn_lif: mean and var: expected both or none");
  Tensor spikes = new_spikes(x, pool_width);
  args.spikes = spikes.data_ptr();
  const auto [v_last, v_seq] = new_potentials(args, x, return_v);
  const int64_t own = mean ? 0 : channels;  // statistics of the batch are outputs
  Tensor batch_mean = new_empty(x, {own}, ScalarType::Float), batch_var = new_empty(x, {own}, ScalarType::Float);
  Tensor table = new_empty(x, {2, channels}, ScalarType::Float);  // scale, and bias if there is none
  float *scale = data<float>(table), *zero_bias = bias ? nullptr : scale + channels;
  args.bn.mean = mean ? data<float>(mean) : data<float>(batch_mean);
  args.bn.scale = scale;
  args.bn.bias = bias ? data<float>(bias) : zero_bias;
  args.prepare = {.weight = data<float>(weight),
                  .eps = static_cast<float>(eps),
                  .var = mean ? data<float>(var) : data<float>(batch_var),
                  .batch_mean = mean ? nullptr : data<float>(batch_mean),
                  .batch_var = mean ? nullptr : data<float>(batch_var),
                  .scale = scale,
                  .zero_bias = zero_bias};
  if (args.N > 0) {
    Backend(x).forward(args);
  } else {  // no value, no statistics
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
  args.bn = {.channels = channels, .inner = inner, .pool_width = pool_width};
  args.lif = lif_args(a, b, c, v_threshold, v_reset, reset);
  set_input(args, args.bn, x, v_init);
  check_channels("weight", weight, channels, x);
  check_channels("bias", bias, channels, x);
  check_channels("mean", mean, channels, x);
  check_channels("var", var, channels, x);
  args.surrogate = surrogate_shape("bn_lif", surrogate, alpha, beta);
  args.detach_reset = detach_reset;
  check_like_spikes(grad_spikes, x, pool_width);
  args.grad_spikes = data(grad_spikes);
  set_potential_gradients(args, "bn_lif", x, grad_v_last, grad_v_seq);
  const auto [grad_x, grad_v_init] = new_gradients(args, x, v_init);
  Tensor grad_weight = new_empty(x, {channels}, ScalarType::Float);
  Tensor grad_bias = new_empty(x, {channels}, ScalarType::Float);
  Tensor table = new_empty(x, {4, channels}, ScalarType::Float);  // scale, bias if there is none, g_mean, slope
  float *scale = data<float>(table), *zero_bias = bias ? nullptr : scale + channels;
  args.bn.mean = data<float>(mean);
  args.bn.scale = scale;
  args.bn.bias = bias ? data<float>(bias) : zero_bias;
  args.prepare = {.weight = data<float>(weight),
                  .eps = static_cast<float>(eps),
                  .var = data<float>(var),
                  .scale = scale,
                  .zero_bias = zero_bias};
  args.batch_statistics = batch_statistics;
  args.grad_weight = data<float>(grad_weight);
  args.grad_bias = data<float>(grad_bias);
  args.g_mean = scale + 2 * channels;
  args.slope = scale + 3 * channels;
  Backend(x).backward(args);
  return {grad_x, grad_v_init, grad_weight, grad_bias};
}

}  // namespace tmkt
