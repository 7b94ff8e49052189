// Vectorised rows of mixup_simd.cpp, at every SIMD level.
#pragma once

#include "common/simd.h"
#include "mixup/mixup_args.h"

namespace tmkt {

struct MixupRow {
  PixelKind source_kind;
  FloatKind target_kind;
  float scale;
  bool stream;  // write past the caches; every row must be aligned to 64 bytes, half types to 32
};

// target[i] = source[i + offset] * scale
TMKT_DECLARE_SIMD(void mixup_convert(const MixupRow& row, const void* source, int64_t offset, void* target,
                                     int64_t target_offset, int64_t count))
// sum[i] += grad[offset + i]
TMKT_DECLARE_SIMD(void mixup_accumulate(FloatKind kind, const void* grad, int64_t offset, float* sum, int64_t count))

}  // namespace tmkt
