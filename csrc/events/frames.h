// Events to frames: T bins of equal time, two polarities, in one pass over the recording.
#pragma once

#include <cstdint>

#include "events/event.h"

namespace tmkt {

struct Size {
  int64_t width;
  int64_t height;
};

// Adds each event to frames [T, 2, height, width], which must be zero at entry. Both throw std::invalid_argument if
// time steps back or an event lies outside the sensor; the first also if a count exceeds int16.
void count_frames(const Event* events, int64_t n_events, int64_t T, Size sensor, int16_t* frames);
void area_frames(const Event* events, int64_t n_events, int64_t T, Size sensor, Size target, float* frames);

}  // namespace tmkt
