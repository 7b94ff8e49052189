// Division of work among CPU threads, and choice of their stores.
#pragma once

#include <algorithm>

#include "common/dispatch.h"

namespace tmkt {

// Minimum number of elements per thread. With fewer, starting the thread costs more than it saves.
constexpr int64_t kGrainElements = 32768;

// Minimum number of items of `elements` elements per thread.
inline int64_t grain_size(int64_t elements) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements));
}

// Neurons per tile. The loop over T runs inside a tile, so that states stay in registers or the first-level cache.
constexpr int64_t kScanTile = 512;

// Scratch memory is allocated in cache lines so that no vector straddles two.
struct alignas(64) CacheLine {
  float values[16];
};

// Row lengths that are multiples of this align every row of any dtype to the widest vector, as streamed stores require.
constexpr int64_t kStreamMultiple = 16;

// Whether to write an output past the caches. This is faster from about twice the second-level cache on, even counting
// the read that follows (CONTRIBUTING.md).
inline bool worth_streaming(int64_t elements, FloatKind kind) {
  constexpr int64_t kBytes = 2 << 20;
  return elements * (kind == FloatKind::kFloat32 ? 4 : 2) > kBytes;
}

}  // namespace tmkt
