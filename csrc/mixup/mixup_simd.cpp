// Rows of mixup: gather, scale, convert. Compiled once per SIMD level.
#include "mixup/mixup_simd.h"

#include "common/convert_simd.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

constexpr int64_t kBlock = 256;

template <typename Source, typename Target>
void convert(const Source* __restrict source, Target* __restrict target, float scale, bool stream, int64_t count) {
  if constexpr (!std::is_same_v<Source, Float16> && !std::is_same_v<Target, Float16>) {  // half needs load_row
    if (!stream) {
      for (int64_t i = 0; i < count; ++i) from_float(to_float(source[i]) * scale, target + i);
      return;
    }
  }
  float row[kBlock];
  alignas(64) Target converted[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t width = count - i < kBlock ? count - i : kBlock;
    load_row(source + i, row, width);
    for (int64_t j = 0; j < width; ++j) row[j] *= scale;
    store_row(row, stream ? converted : target + i, width);
    if (stream) stream_row(converted, target + i, width);
  }
  if (stream) end_stream();
}

}  // namespace

void mixup_convert(const MixupRow& row, const void* source, int64_t offset, void* target, int64_t target_offset,
                   int64_t count) {
  with_pixel(row.source_kind, [&](auto from) {
    with_float(row.target_kind, [&](auto to) {
      using Source = typename decltype(from)::type;
      using Target = typename decltype(to)::type;
      convert(static_cast<const Source*>(source) + offset, static_cast<Target*>(target) + target_offset, row.scale,
              row.stream, count);
    });
  });
}

void mixup_accumulate(FloatKind kind, const void* grad, int64_t offset, float* sum, int64_t count) {
  with_float(kind, [&](auto type) {
    const auto* source = static_cast<const typename decltype(type)::type*>(grad) + offset;
    float row[kBlock];
    for (int64_t i = 0; i < count; i += kBlock) {
      const int64_t width = count - i < kBlock ? count - i : kBlock;
      load_row(source + i, row, width);
      for (int64_t j = 0; j < width; ++j) sum[i + j] += row[j];
    }
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
