// The vectorised loops of bn_lif_simd.cpp, at every SIMD level.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

// Mean over t, and the squared deviations from it, of neurons begin..end -> moments [2, N].
TMKT_DECLARE_SIMD(void bn_moments(const LifArgs& args, float* moments, int64_t begin, int64_t end))
// Sum over the neurons of channel begin..end of (value - center)^power -> sums [channels]; power is 1 or 2.
TMKT_DECLARE_SIMD(void channel_sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                    const double* center, int power, double* sums))
TMKT_DECLARE_SIMD(void bn_lif_forward(const BnLifForwardArgs& args, bool stream, int64_t begin, int64_t end))
// Writes `sums`, or, where it is null, grad_x. `history` as in lif_backward.
TMKT_DECLARE_SIMD(void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin,
                                       int64_t end))

}  // namespace tmkt
