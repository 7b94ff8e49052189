// How CPU kernels share out and write their work.
#pragma once

#include <algorithm>

#include "common/dispatch.h"

namespace tmkt {

// A thread takes at least this many elements: below, starting it costs more than it saves.
constexpr int64_t kGrainElements = 32768;

// How many items of `elements` elements each a thread takes at least.
inline int64_t grain_size(int64_t elements) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements));
}

// Neurons are worked on in tiles of this many, with the loop over T inside: their states then stay in the first-level
// cache or in registers.
constexpr int64_t kScanTile = 512;

// Scratch memory is allocated in cache lines so that no vector straddles two.
struct alignas(64) CacheLine {
  float values[16];
};

// Elements in a row that keep the rows of every dtype aligned to the widest vector, as streamed stores need.
constexpr int64_t kStreamMultiple = 16;

// An output this large is written past the caches: even with the reading that follows, this is faster from about
// twice the second-level cache on (CONTRIBUTING.md).
inline bool worth_streaming(int64_t elements, FloatKind kind) {
  constexpr int64_t kBytes = 2 << 20;
  return elements * (kind == FloatKind::kFloat32 ? 4 : 2) > kBytes;
}

}  // namespace tmkt
