// Loops of lif_simd.cpp, at every SIMD level.
#pragma once

#include "common/simd.h"
#include "lif/lif_args.h"

namespace tmkt {

// `stream`: write the [T, N] outputs past the caches. Every row must then be aligned to 64 bytes, half types to 32.
TMKT_DECLARE_SIMD(void lif_forward(const LifForwardArgs& args, bool stream, int64_t begin, int64_t end))
// `history`: scratch of T * kScanTile floats, aligned to 64 bytes.
TMKT_DECLARE_SIMD(void lif_backward(const LifBackwardArgs& args, bool stream, float* history, int64_t begin,
                                    int64_t end))

}  // namespace tmkt
