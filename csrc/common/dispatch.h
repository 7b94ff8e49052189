// Run-time values to template arguments: with_x(value, f) calls f with the value as a type.
#pragma once

#include <stdexcept>
#include <type_traits>

#include "common/numeric.h"

namespace tmkt {

// Called for a value without a case, because an output must never stay unwritten. Static, as all functions here,
// because each SIMD level and each translation unit must keep its own copy.
#if defined(__CUDACC__) && defined(__CUDA_ARCH__)
[[noreturn]] static __device__ inline void unknown_value() { __trap(); }
#else
[[noreturn]] static inline void unknown_value() { throw std::logic_error("tmkt: a value that no case is for"); }
#endif

template <typename T>
struct TypeTag {
  using type = T;
};

// Float types that every kernel reads and writes.
enum class FloatKind { kFloat32, kBFloat16, kFloat16 };

template <typename F>
static inline void with_float(FloatKind kind, F f) {
  switch (kind) {
    case FloatKind::kFloat32:
      return f(TypeTag<float>{});
    case FloatKind::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case FloatKind::kFloat16:
      return f(TypeTag<Float16>{});
  }
  unknown_value();
}

template <int kValue>
using IntTag = std::integral_constant<int, kValue>;

}  // namespace tmkt
