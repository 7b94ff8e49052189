// A dynamic vision sensor before which an image moves along straight saccades.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "events/event.h"
#include "events/frames.h"

namespace tmkt {

struct SaccadeParams {
  std::vector<std::pair<double, double>> path;  // image centre relative to the sensor's, in sensor pixels
  double saccade_us;                            // time from one point of the path to the next
  double fixation_us;                           // rest after it
  double scale;                                 // sensor pixels per image pixel
  double dark;                                  // light of a black pixel, relative to the range from black to white
  double threshold;                             // mean of the change of log intensity that fires an event
  double mismatch;                              // its standard deviation from pixel to pixel, relative
  double latency_us;                            // time constant of the photoreceptor, a first-order low-pass
  double refractory_us;                         // a pixel sees nothing for so long after an event
  double noise_rate;                            // background events per pixel and second
  uint64_t seed;
};

// `image` holds intensities 0 to 1, row after row; beyond its edge its outermost pixels go on. Sorted by time.
std::vector<Event> simulate_saccades(const double* image, Size image_size, Size sensor, const SaccadeParams& params);

}  // namespace tmkt
