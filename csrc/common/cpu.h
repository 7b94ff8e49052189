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

// An output this large does not stay in the last-level cache: it is written past the caches (CONTRIBUTING.md).
inline bool worth_streaming(int64_t elements, FloatKind kind) {
  constexpr int64_t kBytes = 12 << 20;
  return elements * (kind == FloatKind::kFloat32 ? 4 : 2) > kBytes;
}

}  // namespace tmkt
