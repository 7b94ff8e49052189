// tmkt::mixup_fwd and tmkt::mixup_bwd: checks and outputs around a backend, which the CPU and CUDA files define.
#pragma once

#include "common/stable.h"
#include "mixup/mixup_args.h"

namespace tmkt {

inline PixelKind pixel_kind(const char* name, ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Byte:
      return PixelKind::kUInt8;
    case ScalarType::Short:
      return PixelKind::kInt16;
    case ScalarType::Float:
      return PixelKind::kFloat32;
    case ScalarType::BFloat16:
      return PixelKind::kBFloat16;
    case ScalarType::Half:
      return PixelKind::kFloat16;
    default:
      fail("mixup: ", name, ": expected uint8, int16, float32, bfloat16 or float16, got ",
           torch::headeronly::toString(dtype));
  }
}

inline const int64_t* mixup_index(const char* name, const OptionalTensor& index, int64_t batch, int64_t sources,
                                  const Tensor& events) {
  if (!index) {
    check(sources == batch, "mixup: ", name, ": needed, since there are ", sources, " sources for ", batch, " samples");
    return nullptr;
  }
  check_tensor("mixup", name, *index, 1, events);
  check_dtype("mixup", name, *index, ScalarType::Long);
  check(index->size(0) == batch, "mixup: ", name, ": expected B = ", batch, ", got ", index->size(0));
  return data<int64_t>(index);
}

inline void set_sources(MixupArgs& args, const Tensor& static_images, const Tensor& events, const Tensor& switch_step,
                        const OptionalTensor& static_index, const OptionalTensor& event_index, double static_scale,
                        double event_scale) {
  check_tensor("mixup", "static", static_images, 4, events);
  check_tensor("mixup", "events", events, 5, events);
  check_tensor("mixup", "switch_step", switch_step, 1, events);
  check_dtype("mixup", "switch_step", switch_step, ScalarType::Long);
  args.T = events.size(0);
  args.B = switch_step.size(0);
  args.C = events.size(2);
  args.plane = events.size(3) * events.size(4);
  args.static_count = static_images.size(0);
  args.static_channels = static_images.size(1);
  args.event_count = events.size(1);
  check((args.static_channels == args.C || args.static_channels == 1) && static_images.size(2) == events.size(3) &&
            static_images.size(3) == events.size(4),
        "mixup: static: expected the events' C (or 1), H and W");
  args.switch_step = data<int64_t>(switch_step);
  args.static_index = mixup_index("static_index", static_index, args.B, args.static_count, events);
  args.event_index = mixup_index("event_index", event_index, args.B, args.event_count, events);
  args.static_scale = static_cast<float>(static_scale);
  args.event_scale = static_cast<float>(event_scale);
  args.static_kind = pixel_kind("static", static_images.scalar_type());
  args.event_kind = pixel_kind("events", events.scalar_type());
}

template <typename Backend>
Tensor mixup_fwd(const Tensor& static_images, const Tensor& events, const Tensor& switch_step,
                 const OptionalTensor& static_index, const OptionalTensor& event_index, double static_scale,
                 double event_scale, ScalarType dtype) {
  MixupForwardArgs args{};
  set_sources(args, static_images, events, switch_step, static_index, event_index, static_scale, event_scale);
  args.static_images = static_images.data_ptr();
  args.events = events.data_ptr();
  args.mixed_kind = float_kind("mixup", "dtype", dtype);
  Tensor mixed = new_empty(events, {args.T, args.B, args.C, events.size(3), events.size(4)}, dtype);
  args.mixed = mixed.data_ptr();
  if (mixed.numel() > 0) Backend(events).forward(args);
  return mixed;
}

// Returns an empty tensor for a gradient that is not needed.
inline Tensor mixup_grad(const char* name, const Tensor& source, const Tensor& grad, bool needed) {
  if (!needed) return new_empty(grad, {0}, grad.scalar_type());
  float_kind("mixup", name, source.scalar_type());
  return torch::stable::empty_like(source);
}

template <typename Backend>
std::tuple<Tensor, Tensor> mixup_bwd(const Tensor& grad, const Tensor& static_images, const Tensor& events,
                                     const Tensor& switch_step, const OptionalTensor& static_index,
                                     const OptionalTensor& event_index, double static_scale, double event_scale,
                                     bool need_static, bool need_events) {
  MixupBackwardArgs args{};
  set_sources(args, static_images, events, switch_step, static_index, event_index, static_scale, event_scale);
  args.grad = grad.data_ptr();
  args.grad_kind = float_kind("mixup", "grad", grad.scalar_type());
  check_tensor("mixup", "grad", grad, 5, events);
  check(grad.size(0) == args.T && grad.size(1) == args.B && grad.size(2) == args.C && grad.size(3) == events.size(3) &&
            grad.size(4) == events.size(4),
        "mixup: grad: expected the shape of the mixed sequence");
  Tensor grad_static = mixup_grad("static", static_images, grad, need_static);
  Tensor grad_events = mixup_grad("events", events, grad, need_events);
  if (need_static && grad_static.numel() > 0) args.grad_static = grad_static.data_ptr();
  if (need_events && grad_events.numel() > 0) args.grad_events = grad_events.data_ptr();
  if (args.grad_static || args.grad_events) Backend(events).backward(args);
  return {grad_static, grad_events};
}

}  // namespace tmkt
