// float16, by the CPU's conversions (F16C).
#pragma once

#include <immintrin.h>

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};
using half = __half;
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline float __half2float(__half value) { return _cvtsh_ss(value.bits); }
inline __half __float2half_rn(float value) { return {_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT)}; }
inline __half __float2half(float value) { return __float2half_rn(value); }

struct alignas(4) __half2 {
  __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __half2 __float22half2_rn(float2 pair) { return __floats2half2_rn(pair.x, pair.y); }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
