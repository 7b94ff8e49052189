// The vectorised loops of lif_simd.cpp, at every SIMD level.
#pragma once

#include "common/simd.h"
#include "lif/lif_args.h"

namespace tmkt {

// Neurons are worked on in tiles of this many, with the loop over T inside: their state then lives in registers.
constexpr int64_t kLifTile = 512;

// `stream`: write the [T, N] outputs past the caches; every row must then be aligned to 64 bytes, half types to 32.
TMKT_DECLARE_SIMD(void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end))
// `history` is room for T * kLifTile floats, aligned to 64 bytes.
TMKT_DECLARE_SIMD(void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin,
                                    int64_t end))

}  // namespace tmkt
