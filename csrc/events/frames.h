// Events to frames: T bins of equal time, two polarities, in one pass over the recording.
#pragma once

#include <cstdint>

#include "events/event.h"

namespace tmkt {

struct Size {
  int64_t width;
  int64_t height;
};

// Bin floor((t - begin) * T / duration), in us; 0 < duration < 2^62 and 0 < T < 2^31.
struct Bins {
  int64_t begin;
  int64_t duration;
  int64_t T;
};

// An axis's table of tmkt_kernels/ops/camera/area.py: for each source pixel the first target cell and `taps` shares.
struct AreaShares {
  const int32_t* table;  // [source, 1 + taps]
  int64_t taps;
};

// Adds each event to frames [T, 2, height, width], which must be zero at entry. Both throw std::invalid_argument if
// time steps back or an event lies outside the bins or the sensor; the first also if a count exceeds int16.
void count_frames(const Event* events, int64_t n_events, Bins bins, Size sensor, int16_t* frames);
void area_frames(const Event* events, int64_t n_events, Bins bins, Size sensor, Size target, AreaShares columns,
                 AreaShares rows, float* frames);

}  // namespace tmkt
