// bn_lif neuron by neuron, each with its channel's values: where channels are short planes, or lie side by side.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

// Some value of each channel, for the means below to be told from: far from zero, their differences need the digits.
TMKT_DECLARE_SIMD(void channel_pivots(const LifArgs& args, int64_t channels, int64_t inner, float* pivots))
// Of each neuron the mean over t minus the channel's pivot, and the squared deviations from the mean -> moments [2, N].
TMKT_DECLARE_SIMD(void neuron_moments(const LifArgs& args, int64_t channels, int64_t inner, const float* pivots,
                                      float* moments, int64_t begin, int64_t end))
// Sum over the neurons of a channel of (value - center)^power -> sums [channels]; power is 1 or 2.
TMKT_DECLARE_SIMD(void channel_sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                    const double* center, int power, double* sums))
TMKT_DECLARE_SIMD(void bn_lif_forward(const BnLifForwardArgs& args, bool stream, int64_t begin, int64_t end))
// `history` as in lif_backward.
TMKT_DECLARE_SIMD(void bn_lif_backward(const BnLifBackwardArgs& args, bool stream, float* history, int64_t begin,
                                       int64_t end))
// The second pass over values begin..end of grad_x in float32.
TMKT_DECLARE_SIMD(void bn_lif_finish(const BnLifBackwardArgs& args, int64_t begin, int64_t end))

}  // namespace tmkt
