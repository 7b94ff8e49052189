// A dynamic vision sensor in front of an image that moves along straight lines, or of a video.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "events/event.h"
#include "events/frames.h"

namespace tmkt {

struct SensorParams {
  double dark;           // intensity of a black pixel, relative to the range from black to white
  double threshold;      // mean change of log intensity that fires an event
  double mismatch;       // standard deviation of the threshold from pixel to pixel, relative
  double latency_us;     // time constant of the photoreceptor, a first-order low-pass
  double refractory_us;  // time after an event in which the pixel sees nothing
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

// Called a few times per second; an exception that it throws ends the simulation.
using Poll = std::function<void()>;

// Both throw std::invalid_argument for inputs that would take unbounded time or memory; the limits are in the source.
//
// `image` holds intensities 0 to 1 in row-major order; beyond its edge, the outermost pixels continue. Events are
// sorted by time.
std::vector<Event> simulate_motion(const double* image, Size image_size, Size sensor, const Motion& motion,
                                   const SensorParams& params, const Poll& poll);

// `frames` holds times_us.size() pictures of the sensor's size, intensities 0 to 1. Between two pictures, the logarithm
// of a pixel's intensity is interpolated linearly. Events are sorted by time; times begin at times_us[0] and grow.
std::vector<Event> simulate_video(const double* frames, const std::vector<double>& times_us, Size sensor,
                                  const SensorParams& params, const Poll& poll);

}  // namespace tmkt
