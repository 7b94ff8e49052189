// A dynamic vision sensor before which an image moves along straight lines, or a video plays.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "events/event.h"
#include "events/frames.h"

namespace tmkt {

struct SensorParams {
  double dark;           // light of a black pixel, relative to the range from black to white
  double threshold;      // mean of the change of log intensity that fires an event
  double mismatch;       // its standard deviation from pixel to pixel, relative
  double latency_us;     // time constant of the photoreceptor, a first-order low-pass
  double refractory_us;  // a pixel sees nothing for so long after an event
  double noise_rate;     // background events per pixel and second
  uint64_t seed;
};

struct Motion {
  std::vector<std::pair<double, double>> path;  // image centre relative to the sensor's, in sensor pixels
  double leg_us;                                // time from one point of the path to the next
  double rest_us;                               // rest after it
  double scale;                                 // sensor pixels per image pixel
  bool smooth;  // start and end each leg at rest (a saccade), or keep one speed (a drift)
};

// Called a few times a second; what it throws ends the simulation.
using Poll = std::function<void()>;

// Both throw std::invalid_argument for what would take forever or more memory than there is: the limits are in the
// source.
//
// `image` holds intensities 0 to 1, row after row; beyond its edge its outermost pixels go on. Sorted by time.
std::vector<Event> simulate_motion(const double* image, Size image_size, Size sensor, const Motion& motion,
                                   const SensorParams& params, const Poll& poll);

// `frames` holds times_us.size() pictures of the sensor's size, intensities 0 to 1; between two of them the light of
// a pixel goes from one to the other in the logarithm. Sorted by time; times begin at times_us[0] and grow.
std::vector<Event> simulate_video(const double* frames, const std::vector<double>& times_us, Size sensor,
                                  const SensorParams& params, const Poll& poll);

}  // namespace tmkt
