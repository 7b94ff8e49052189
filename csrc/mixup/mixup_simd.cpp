// Rows of mixup: gather, scale, convert. Compiled once per SIMD level.
#include "mixup/mixup_simd.h"

#include "common/vector_simd-inl.h"

namespace tmkt {
namespace TMKT_SIMD {
namespace {

// Calls vector(access, i) for the vectors of 0..count.
template <typename Access, typename F>
TMKT_INLINE void for_each_vector(Access access, int64_t count, F vector) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) vector(access, i);
  if (i < count) vector(PartOfVector{count - i}, i);
}

template <typename Source, typename Target, typename Access>
void convert(Access access, const Source* source, Target* target, float scale, int64_t count) {
  for_each_vector(access, count,
                  [=](auto access, int64_t i) { store(access, access.load(source + i) * scale, target + i); });
}

}  // namespace

void mixup_convert(const MixupRow& row, const void* source, int64_t offset, void* target, int64_t target_offset,
                   int64_t count) {
  with_pixel(row.source_kind, [&](auto from) {
    with_float(row.target_kind, [&](auto to) {
      using Source = typename decltype(from)::type;
      using Target = typename decltype(to)::type;
      const Source* first = static_cast<const Source*>(source) + offset;
      Target* out = static_cast<Target*>(target) + target_offset;
      if (row.stream) {
        convert(StreamedVector{}, first, out, row.scale, count);
        StreamedVector::end();
      } else {
        convert(WholeVector{}, first, out, row.scale, count);
      }
    });
  });
}

void mixup_accumulate(FloatKind kind, const void* grad, int64_t offset, float* sum, int64_t count) {
  with_float(kind, [&](auto type) {
    const auto* source = static_cast<const typename decltype(type)::type*>(grad) + offset;
    for_each_vector(WholeVector{}, count, [=](auto access, int64_t i) {
      store(access, access.load(sum + i) + access.load(source + i), sum + i);
    });
  });
}

}  // namespace TMKT_SIMD
}  // namespace tmkt
