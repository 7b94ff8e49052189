// Arguments of the mixup kernels, for CPU and CUDA; mirrors tmkt_kernels/ops/mixup/reference.py.
#pragma once

#include "common/dispatch.h"

namespace tmkt {

// Types of images and event frames.
enum class PixelKind { kUInt8, kInt16, kFloat32, kBFloat16, kFloat16 };

template <typename F>
static TMKT_INLINE void with_pixel(PixelKind kind, F f) {
  switch (kind) {
    case PixelKind::kUInt8:
      return f(TypeTag<uint8_t>{});
    case PixelKind::kInt16:
      return f(TypeTag<int16_t>{});
    case PixelKind::kFloat32:
      return f(TypeTag<float>{});
    case PixelKind::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case PixelKind::kFloat16:
      return f(TypeTag<Float16>{});
  }
  unknown_value();
}

struct MixupArgs {
  int64_t T, B, C, plane;       // plane = H * W
  int64_t static_count;         // Bs
  int64_t static_channels;      // C, or 1: one plane for all channels
  int64_t event_count;          // Be
  const int64_t* switch_step;   // [B]
  const int64_t* static_index;  // [B], or null: sample b
  const int64_t* event_index;   // [B], or null: sample b
  float static_scale, event_scale;
  PixelKind static_kind, event_kind;
};

struct MixupForwardArgs : MixupArgs {
  const void* static_images;  // [Bs, static_channels, H, W]
  const void* events;         // [T, Be, C, H, W]
  void* mixed;                // [T, B, C, H, W]
  FloatKind mixed_kind;
};

struct MixupBackwardArgs : MixupArgs {
  const void* grad;  // [T, B, C, H, W]
  FloatKind grad_kind;
  void* grad_static;  // like static_images, or null
  void* grad_events;  // like events, or null
};

}  // namespace tmkt
