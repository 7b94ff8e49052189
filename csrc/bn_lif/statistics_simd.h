// Loops of statistics_simd.cpp, at every SIMD level: moments of cells of one channel. A cell is a plane or a neuron.
#pragma once

#include "bn_lif/bn_lif_args.h"
#include "common/simd.h"

namespace tmkt {

// One value per channel. Means are computed relative to it; far from zero, they would otherwise lose precision to
// cancellation.
TMKT_DECLARE_SIMD(void channel_pivots(const ScanArgs& args, int64_t channels, int64_t inner, float* pivots))
// Mean over t relative to the channel's pivot, and squared deviations from the mean, per neuron -> moments [2, N].
TMKT_DECLARE_SIMD(void neuron_moments(const ScanArgs& args, int64_t channels, int64_t inner, const float* pivots,
                                      float* moments, int64_t begin, int64_t end))
// Moments of planes begin..end of all [T, planes] of x -> moments [2, T * planes].
TMKT_DECLARE_SIMD(void plane_moments(const ScanArgs& args, const BnArgs& bn, const float* pivots, float* moments,
                                     int64_t begin, int64_t end))
// Sum over the cells of a channel of (value - center)^power -> sums [channels]; power is 1 or 2.
TMKT_DECLARE_SIMD(void channel_sums(const float* values, int64_t N, int64_t channels, int64_t inner,
                                    const double* center, int power, double* sums))

}  // namespace tmkt
