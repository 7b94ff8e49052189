// Assignment of bn_lif's neurons to blocks and threads.
//
// A thread takes a pack of neurons: neighbours along a step, or whole 2x2 cells where spikes are pooled. It takes the
// pack at the same place of the same channel in several samples, which spreads the cost of a channel's sums over many
// neurons. The packs of a block lie in a span of channels, either one or as many as make accesses long, and in as many
// samples as fill its threads.
//
//   x[t]  sample 0 | channel 0 | channel 1 | channel 2 | ..      a span of 2 channels, 2 samples at once: the packs
//         sample 1 | channel 0 | channel 1 | channel 2 | ..      of a block are in channels 0 and 1 of samples 0
//         sample 2 | channel 0 | channel 1 | channel 2 | ..      and 1, then of two samples further on, ..
#pragma once

#include <algorithm>
#include <numeric>

#include "bn_lif/bn_lif_args.h"
#include "common/rows.cuh"

namespace tmkt {
namespace {

struct Tiling {
  int64_t samples, channels, inner;
  int64_t of_sample;               // values per sample
  int64_t span;                    // channels per block
  int64_t packs;                   // per span and sample
  int64_t of_channel;              // packs per channel and sample; neurons, if a pack holds several channels
  int64_t at_once;                 // samples side by side in a block,
  int depth;                       // and one after another
  int64_t stride;                  // in samples, from turn to turn, so that all blocks read the same part of x
  int64_t spans, slices, groups;   // counts of blocks: the packs of a span are cut into slices, the samples into groups
  int lanes;                       // threads that sum one channel
  int64_t height, width;           // of a plane whose spikes are pooled
  int64_t of_pooled, pooled_step;  // values in a pooled plane, and in all of them

  int64_t blocks() const { return spans * slices * groups; }
  TMKT_INLINE int64_t sets() const { return slices * groups; }  // of sums, per channel
};

constexpr int64_t kMostAtOnce = 16, kMostInTurn = 64;
#ifndef TMKT_ENOUGH_BLOCKS
#define TMKT_ENOUGH_BLOCKS 2048  // two per slot on an H100; smaller in the emulator
#endif

// `blocks` are enough: beyond, blocks take more samples. `most`: samples per thread at most.
struct Turns {
  int64_t blocks, most;
};
constexpr Turns kShortTurns{3 * TMKT_ENOUGH_BLOCKS, kMostInTurn};

// Turns of a kernel that computes sums: long, which spreads the cost of the sums, and longer the more channels a pack
// has. Other kernels have more blocks, because these finish more evenly. Measured: benchmarks/results/tuning.md. A
// thread takes at most `most_steps` steps of a neuron, because its sums are in float.
template <typename Pack>
Turns long_turns(int64_t T, int64_t most_steps) {
  const int64_t most = std::clamp<int64_t>(most_steps / T, 1, kMostInTurn);
  return {TMKT_ENOUGH_BLOCKS / (Pack::kOwn > 1 ? 2 : 1), most};
}

// A span is a multiple of `step` channels.
inline Tiling make_tiling(int64_t N, const BnArgs& bn, int64_t step, int64_t packs_of_step, int64_t units_of_channel,
                          int64_t bytes_of_channel, int64_t run_bytes, const Turns& in_turn) {
  Tiling tiling{};
  tiling.channels = bn.channels;
  tiling.inner = bn.inner;
  tiling.of_sample = bn.channels * bn.inner;
  tiling.width = bn.pool_width;
  tiling.height = bn.pool_width > 0 ? bn.inner / bn.pool_width : 0;
  tiling.of_channel = units_of_channel;
  tiling.lanes = 1;
  if (N == 0) return tiling;  // of no blocks
  tiling.samples = N / tiling.of_sample;
  tiling.of_pooled = (tiling.height / 2) * (tiling.width / 2);
  tiling.pooled_step = tiling.samples * tiling.channels * tiling.of_pooled;
  const auto slices = [&](int64_t span, int64_t at_once) {
    return (at_once * (span / step) * packs_of_step + kThreads - 1) / kThreads;
  };
  // Whether at least 15 of 16 threads have work.
  const auto full = [&](int64_t span, int64_t at_once) {
    return at_once * (span / step) * packs_of_step * 16 >= slices(span, at_once) * kThreads * 15;
  };
  const int64_t steps = (bn.channels + step - 1) / step, most = std::min(tiling.samples, kMostAtOnce);
  int64_t span = step, at_once = 1;
  const auto fill = [&] {
    for (at_once = 1; at_once < most && !full(span, at_once);) ++at_once;
    return full(span, at_once);
  };
  while ((span * bytes_of_channel < run_bytes || !fill()) && span < bn.channels) span *= 2;
  // As even as possible.
  const int64_t spans = (steps * step + span - 1) / span;
  span = (steps + spans - 1) / spans * step;
  fill();
  tiling.span = span;
  tiling.spans = (steps * step + span - 1) / span;
  tiling.packs = span / step * packs_of_step;
  tiling.at_once = at_once;
  tiling.slices = slices(span, at_once);
  const int64_t turns = (tiling.samples + at_once - 1) / at_once;
  tiling.depth =
      static_cast<int>(std::clamp<int64_t>(turns * tiling.slices * tiling.spans / in_turn.blocks, 1, in_turn.most));
  tiling.groups = (turns + tiling.depth - 1) / tiling.depth;
  tiling.stride = tiling.groups * at_once;
  const int64_t units = kThreads * (span * units_of_channel / tiling.packs) / span;
  while (tiling.lanes < 32 && 2 * tiling.lanes <= units) tiling.lanes *= 2;
  return tiling;
}

// Work of a thread.
struct Item {
  int64_t set, slice, first_channel;  // of the block
  int64_t sample, pack;               // of the thread: its first sample, and its pack in the span
  bool there;                         // false past the end, in the last slice

  __device__ __forceinline__ Item(const Tiling& tiling) {
    const Division of_block(blockIdx.x, tiling.spans), of_set(of_block.quotient, tiling.slices);
    set = of_block.quotient;
    slice = of_set.remainder;
    first_channel = of_block.remainder * tiling.span;
    const Division of_thread(slice * kThreads + threadIdx.x, tiling.packs);
    there = of_thread.quotient < tiling.at_once;
    sample = of_set.quotient * tiling.at_once + of_thread.quotient;
    pack = of_thread.remainder;
  }
};

// Calls f with the pack in each sample of its thread, last to first if `kBackwards`. Each pass over x begins where the
// previous one ended, because the second-level cache still holds that part.
template <bool kBackwards, typename Pack, typename F>
__device__ __forceinline__ void each_sample(const Tiling& tiling, int64_t N, Pack& pack, const F& f) {
  if (kBackwards) pack.move(tiling, (tiling.depth - 1) * tiling.stride);
#pragma unroll 1
  for (int turn = 0; turn < tiling.depth; ++turn) {
    if (pack.place.n < N) f();
    pack.move(tiling, kBackwards ? -tiling.stride : tiling.stride);
  }
}

}  // namespace
}  // namespace tmkt
