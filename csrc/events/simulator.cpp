#include "events/simulator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "events/random.h"

namespace tmkt {
namespace {

constexpr double kMaxStep = 0.125;      // pixels that the image may move between two samples of the intensity
constexpr double kNoiseOnShare = 0.98;  // junction leakage makes nearly all background events of N-MNIST on events

constexpr double kMaxSteps = 1e7;  // samples of the intensity
constexpr double kMinStepUs = 1e-6;
constexpr double kMaxDurationUs = 0x1p53;  // beyond this, a double does not resolve microseconds
constexpr size_t kMaxEvents = size_t{1} << 26;
constexpr int64_t kMaxPixels = int64_t{1} << 26;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

// `what` describes the quantity, with # for the number.
void require_at_most(double value, double limit, std::string what, const std::string& remedy) {
  if (value <= limit) return;  // false for NaN
  what.replace(what.find('#'), 1, number(value));
  throw std::invalid_argument(what + "; expected " + number(limit) + " at most: " + remedy);
}

void check_size(Size sensor) {
  require_at_most(static_cast<double>(sensor.width) * static_cast<double>(sensor.height), kMaxPixels,
                  "sensor_size: got # pixels", "simulate a smaller sensor");
}

void check_duration(double us) {
  require_at_most(us, kMaxDurationUs, "the simulation lasts # us", "are its times in microseconds?");
}

void add_event(std::vector<Event>& events, const Event& event) {
  if (events.size() == kMaxEvents) {
    throw std::invalid_argument("the simulation makes more than " + std::to_string(kMaxEvents) +
                                " events: raise threshold or refractory_us, or simulate less at once");
  }
  events.push_back(event);
}

// Polls at most a few times per second, however short the steps are.
class Pulse {
 public:
  explicit Pulse(const Poll& poll) : poll_(poll) {}

  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(200)) return;
    last_ = now;
    poll_();
  }

 private:
  const Poll& poll_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Minimum-jerk profile of a saccade (Flash and Hogan 1985): share of the path at share s of the time. Peak speed 15/8.
double minimum_jerk(double s) { return s * s * s * (10.0 + s * (-15.0 + 6.0 * s)); }

// Bilinear sampling along one axis: pixel i of the sensor sees (1 - share) low + share (low + 1) of the image.
struct Samples {
  std::vector<int64_t> low, high;
  std::vector<double> share;

  Samples(int64_t sensor, int64_t source, double scale, double offset) : low(sensor), high(sensor), share(sensor) {
    for (int64_t i = 0; i < sensor; ++i) {
      const double centre = static_cast<double>(i) + 0.5 - 0.5 * static_cast<double>(sensor) - offset;
      const double at = centre / scale + 0.5 * static_cast<double>(source) - 0.5;
      const double inside = std::clamp(at, 0.0, static_cast<double>(source - 1));
      low[i] = static_cast<int64_t>(inside);
      high[i] = std::min(low[i] + 1, source - 1);
      share[i] = inside - static_cast<double>(low[i]);
    }
  }
};

// Area resize along one axis: source pixel i spreads over the cells first[i] .. first[i] + taps - 1 with
// weights[i * taps ...], which sum to 1. Shares are exact integers before the one division, so that they round the same
// on every platform.
struct AreaTable {
  int taps;
  std::vector<int> first;
  std::vector<float> weights;

  AreaTable(int64_t source, int64_t target) : taps(1), first(source), weights() {
    // In units of 1 / (source * target) of the axis, a pixel is `target` long and a cell `source` long.
    for (int64_t i = 0; i < source; ++i) {
      taps = std::max(taps, static_cast<int>(((i + 1) * target - 1) / source - i * target / source + 1));
    }
    // At least two taps, even where one would do, so that all down-sampling has one form, whose loop is unrolled.
    taps = static_cast<int>(std::min<int64_t>(std::max(taps, 2), target));
    weights.resize(source * taps);
    for (int64_t i = 0; i < source; ++i) {
      const int64_t begin = i * target;
      first[i] = static_cast<int>(std::min(begin / source, target - taps));
      for (int k = 0; k < taps; ++k) {
        const int64_t cell = (first[i] + k) * source;
        const int64_t overlap = std::min(begin + target, cell + source) - std::max(begin, cell);
        weights[i * taps + k] = static_cast<float>(std::max<int64_t>(overlap, 0)) / static_cast<float>(target);
      }
    }
  }
};

struct Image {
  std::vector<double> pixels;
  Size size;
};

// Averages over areas if the display is coarser than the image, because thin lines could fall between samples.
Image display(const double* image, Size size, double& scale) {
  Image shown{{image, image + size.width * size.height}, size};
  if (scale >= 1.0) return shown;
  const auto shrink = [&](int64_t n) { return std::max<int64_t>(1, std::llround(static_cast<double>(n) * scale)); };
  const Size target{shrink(size.width), shrink(size.height)};
  const AreaTable columns(size.width, target.width), rows(size.height, target.height);
  const double share =
      static_cast<double>(target.width * target.height) / static_cast<double>(size.width * size.height);
  std::vector<double> averaged(target.width * target.height, 0.0);
  for (int64_t y = 0; y < size.height; ++y) {
    for (int64_t x = 0; x < size.width; ++x) {
      for (int j = 0; j < rows.taps; ++j) {
        for (int i = 0; i < columns.taps; ++i) {
          averaged[(rows.first[y] + j) * target.width + columns.first[x] + i] +=
              share * rows.weights[y * rows.taps + j] * columns.weights[x * columns.taps + i] *
              image[y * size.width + x];
        }
      }
    }
  }
  scale = 1.0;
  return {std::move(averaged), target};
}

// log(intensity + dark) at every pixel of the sensor, with the image's centre `dx`, `dy` pixels from the sensor's.
void see(const Image& image, Size sensor, double scale, double dark, double dx, double dy, std::vector<double>& out) {
  const Samples columns(sensor.width, image.size.width, scale, dx), rows(sensor.height, image.size.height, scale, dy);
  for (int64_t y = 0; y < sensor.height; ++y) {
    const double* upper = &image.pixels[rows.low[y] * image.size.width];
    const double* lower = &image.pixels[rows.high[y] * image.size.width];
    const double down = rows.share[y];
    for (int64_t x = 0; x < sensor.width; ++x) {
      const int64_t l = columns.low[x], r = columns.high[x];
      const double left = upper[l] + down * (lower[l] - upper[l]);
      const double right = upper[r] + down * (lower[r] - upper[r]);
      out[y * sensor.width + x] = portable_log(left + columns.share[x] * (right - left) + dark);
    }
  }
}

struct Pixel {
  double reference;  // log intensity at the last event
  double ready;      // end of the refractory period, when `reference` is reset
  double on, off;    // thresholds
};

// Fires the events of one pixel while its log intensity moves linearly from `from` at t0 to `to` at t1.
void fire(Pixel& pixel, double from, double to, double t0, double t1, double refractory, Event event,
          std::vector<Event>& out) {
  const double slope = (to - from) / (t1 - t0);
  while (pixel.ready < t1) {
    if (pixel.ready >= t0) pixel.reference = from + slope * (pixel.ready - t0);
    const double change = to - pixel.reference;
    const bool on = change > 0.0;
    const double threshold = on ? pixel.on : pixel.off;
    if (std::fabs(change) < threshold) return;
    const double crossed = pixel.reference + (on ? threshold : -threshold);
    const double t = t0 + (crossed - from) / slope;
    event.t = static_cast<int64_t>(t);
    event.p = on;
    add_event(out, event);
    pixel.reference = crossed;
    pixel.ready = t + refractory;
  }
}

class Sensor {
 public:
  Sensor(Size size, const SensorParams& params, std::vector<double> first_view, double now = 0.0)
      : size_(size),
        now_(now),
        latency_(params.latency_us),
        refractory_(params.refractory_us),
        before_(std::move(first_view)),
        pixels_(before_.size()) {
    Random random(params.seed);
    // The lower bound keeps an unlucky draw from a zero threshold, at which the pixel would fire without end.
    const auto draw = [&] { return params.threshold * std::max(0.1, 1.0 + params.mismatch * random.normal()); };
    for (size_t i = 0; i < pixels_.size(); ++i) {
      const double on = draw(), off = draw();
      pixels_[i] = {before_[i], now - 1.0, on, off};
    }
  }

  // Shows `view` from now until t1. The photoreceptors follow it by an implicit Euler step, which needs no exp().
  void expose(const std::vector<double>& view, double t1, std::vector<Event>& out) {
    const double t0 = now_;
    if (!(t1 > t0)) {
      throw std::invalid_argument("after " + number(t0) +
                                  " us a step is too short for time to go on: are the times in " + "microseconds?");
    }
    const double follow = (t1 - t0) / (t1 - t0 + latency_);
    for (size_t i = 0; i < pixels_.size(); ++i) {
      const double after = before_[i] + follow * (view[i] - before_[i]);
      Pixel& pixel = pixels_[i];
      const double change = after - pixel.reference;
      // Most pixels see no change; the test avoids a division for them.
      if (pixel.ready >= t0 || change >= pixel.on || change <= -pixel.off) {
        const Event event{static_cast<int16_t>(i % size_.width), static_cast<int16_t>(i / size_.width), 0, 0};
        fire(pixel, before_[i], after, t0, t1, refractory_, event, out);
      }
      before_[i] = after;
    }
    now_ = t1;
  }

 private:
  Size size_;
  double now_;
  double latency_;
  double refractory_;
  std::vector<double> before_;
  std::vector<Pixel> pixels_;
};

void add_noise(Size sensor, const SensorParams& params, double begin_us, double end_us, Pulse& pulse,
               std::vector<Event>& out) {
  if (params.noise_rate <= 0.0) return;
  Random random(~params.seed);  // a separate stream, so that the rate changes no other event
  const double n_pixels = static_cast<double>(sensor.width * sensor.height);
  const double mean_wait = 1e6 / (params.noise_rate * n_pixels);
  for (double t = begin_us + mean_wait * random.exponential(); t < end_us; t += mean_wait * random.exponential()) {
    const int64_t at = static_cast<int64_t>(random.uniform() * n_pixels);
    const uint8_t on = random.uniform() < kNoiseOnShare;
    add_event(out, {static_cast<int16_t>(at % sensor.width), static_cast<int16_t>(at / sensor.width),
                    static_cast<int64_t>(t), on});
    if (out.size() % 4096 == 0) pulse();
  }
}

void check_noise(Size sensor, const SensorParams& params, double duration_us) {
  const double n_pixels = static_cast<double>(sensor.width * sensor.height);
  require_at_most(params.noise_rate * n_pixels * duration_us * 1e-6, kMaxEvents,
                  "noise_rate: it makes about # background events",
                  "it is events per pixel and second, and times are in microseconds");
}

// Stable, so that events of the same microsecond keep the order in which they were generated.
void sort_by_time(std::vector<Event>& events) {
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.t < b.t; });
}

}  // namespace

std::vector<Event> simulate_motion(const double* image, Size image_size, Size sensor, const Motion& motion,
                                   const SensorParams& params, const Poll& poll) {
  check_size(sensor);
  struct Leg {
    double x, y, dx, dy, step_us;
    int64_t steps, rests;
  };
  std::vector<Leg> legs;
  double all_steps = 0.0, duration = 0.0;
  for (size_t k = 1; k < motion.path.size(); ++k) {
    const auto [x, y] = motion.path[k - 1];
    const double dx = motion.path[k].first - x, dy = motion.path[k].second - y;
    const double fastest = (motion.smooth ? 15.0 / 8.0 : 1.0) * std::sqrt(dx * dx + dy * dy);
    const double steps = std::max(1.0, std::ceil(fastest / kMaxStep));
    const double step_us = motion.leg_us / steps;
    const double rests = std::ceil(motion.rest_us / step_us);
    all_steps += steps + rests;
    require_at_most(all_steps, kMaxSteps, "the motion takes # steps of 1/8 pixel, rests included",
                    "is the path in sensor pixels, and are the times in microseconds?");
    if (step_us < kMinStepUs) {
      throw std::invalid_argument("a step of the motion takes " + number(step_us) + " us; expected " +
                                  number(kMinStepUs) + " or more: are the times in microseconds?");
    }
    duration += motion.leg_us + motion.rest_us;
    legs.push_back({x, y, dx, dy, step_us, static_cast<int64_t>(steps), static_cast<int64_t>(rests)});
  }
  check_duration(duration);
  check_noise(sensor, params, duration);

  double scale = motion.scale;
  const Image shown = display(image, image_size, scale);
  std::vector<double> view(sensor.width * sensor.height);
  see(shown, sensor, scale, params.dark, motion.path[0].first, motion.path[0].second, view);
  Sensor dvs(sensor, params, view);
  Pulse pulse(poll);
  std::vector<Event> events;
  double start = 0.0;
  for (const Leg& leg : legs) {
    for (int64_t k = 1; k <= leg.steps; ++k) {
      pulse();
      const double share = static_cast<double>(k) / static_cast<double>(leg.steps);
      const double way = motion.smooth ? minimum_jerk(share) : share;
      see(shown, sensor, scale, params.dark, leg.x + way * leg.dx, leg.y + way * leg.dy, view);
      dvs.expose(view, start + static_cast<double>(k) * leg.step_us, events);
    }
    // During the rest the photoreceptors catch up.
    for (int64_t k = 1; k <= leg.rests; ++k) {
      pulse();
      const double rest_us = motion.rest_us * static_cast<double>(k) / static_cast<double>(leg.rests);
      dvs.expose(view, start + motion.leg_us + rest_us, events);
    }
    start += motion.leg_us + motion.rest_us;
  }
  add_noise(sensor, params, 0.0, start, pulse, events);
  sort_by_time(events);
  return events;
}

std::vector<Event> simulate_video(const double* frames, const std::vector<double>& times_us, Size sensor,
                                  const SensorParams& params, const Poll& poll) {
  check_size(sensor);
  check_duration(times_us.back());
  check_noise(sensor, params, times_us.back() - times_us.front());
  const int64_t pixels = sensor.width * sensor.height;
  std::vector<double> view(pixels);
  const auto look = [&](size_t frame) {
    for (int64_t i = 0; i < pixels; ++i) view[i] = portable_log(frames[frame * pixels + i] + params.dark);
  };
  look(0);
  Sensor dvs(sensor, params, view, times_us[0]);
  Pulse pulse(poll);
  std::vector<Event> events;
  for (size_t frame = 1; frame < times_us.size(); ++frame) {
    pulse();
    look(frame);
    dvs.expose(view, times_us[frame], events);
  }
  add_noise(sensor, params, times_us.front(), times_us.back(), pulse, events);
  sort_by_time(events);
  return events;
}

}  // namespace tmkt
