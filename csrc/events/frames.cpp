#include "events/frames.h"

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "events/area.h"

namespace tmkt {
namespace {

// ends[k], k < T - 1, is the first time after bin k, where bin(t) = floor((t - first) * T / D) with D = last - first +
// 1: the smallest d = t - first with d * T >= (k + 1) * D. Comparing with it saves a division per event.
std::vector<int64_t> bin_ends(int64_t first, int64_t last, int64_t T) {
  if (last < first) throw std::invalid_argument("time runs backwards: the last event is before the first");
  const uint64_t D = static_cast<uint64_t>(last) - static_cast<uint64_t>(first) + 1;
  if (D == 0 || D >> 62) throw std::invalid_argument("t: the recording spans 2^62 us or more; is the unit right?");
  std::vector<int64_t> ends(T - 1);
  for (int64_t k = 1; k < T; ++k) {
    // ceil(k * D / T), in two parts so that nothing overflows (T < 2^31)
    const uint64_t whole = k * (D / T);
    const uint64_t part = (k * (D % T) + T - 1) / T;
    ends[k - 1] = static_cast<int64_t>(static_cast<uint64_t>(first) + whole + part);
  }
  return ends;
}

// Calls add(frame_index, event, event_index) with frame_index = 2 * bin + polarity.
template <class Add>
void for_each_event(const Event* events, int64_t n_events, int64_t T, Size sensor, Add add) {
  if (n_events == 0) return;
  const std::vector<int64_t> ends = bin_ends(events[0].t, events[n_events - 1].t, T);
  int64_t bin = 0;
  int64_t last = events[0].t;
  for (int64_t i = 0; i < n_events; ++i) {
    const Event e = events[i];
    if (e.t < last) {
      reject(i, backwards(last, e.t) + "; sort with events[np.argsort(events['t'], kind='stable')]");
    }
    // As unsigned, a negative coordinate is outside any sensor too.
    if (static_cast<uint64_t>(e.x) >= static_cast<uint64_t>(sensor.width) ||
        static_cast<uint64_t>(e.y) >= static_cast<uint64_t>(sensor.height)) {
      reject(i, "x = " + std::to_string(e.x) + ", y = " + std::to_string(e.y) + " lies beyond the sensor of " +
                    std::to_string(sensor.width) + " x " + std::to_string(sensor.height) +
                    " (width x height); check sensor_size");
    }
    last = e.t;
    while (bin < T - 1 && last >= ends[bin]) ++bin;
    add(2 * bin + (e.p != 0), e, i);
  }
}

// kTaps > 0 fixes the number of taps of both tables at compile time.
template <int kTaps>
void spread(const Event* events, int64_t n_events, int64_t T, Size sensor, Size target, const AreaTable& columns,
            const AreaTable& rows, float* frames) {
  const int nx = kTaps ? kTaps : columns.taps;
  const int ny = kTaps ? kTaps : rows.taps;
  const int64_t plane = target.width * target.height;
  for_each_event(events, n_events, T, sensor, [&](int64_t frame, const Event& e, int64_t) {
    const float* wx = &columns.weights[e.x * nx];
    const float* wy = &rows.weights[e.y * ny];
    float* cell = frames + frame * plane + rows.first[e.y] * target.width + columns.first[e.x];
    for (int j = 0; j < ny; ++j, cell += target.width) {
      for (int i = 0; i < nx; ++i) cell[i] += wy[j] * wx[i];
    }
  });
}

}  // namespace

void count_frames(const Event* events, int64_t n_events, int64_t T, Size sensor, int16_t* frames) {
  const int64_t plane = sensor.width * sensor.height;
  for_each_event(events, n_events, T, sensor, [&](int64_t frame, const Event& e, int64_t index) {
    int16_t& count = frames[frame * plane + e.y * sensor.width + e.x];
    if (count == std::numeric_limits<int16_t>::max()) {
      reject(index, "more than 32767 events of one polarity at x = " + std::to_string(e.x) +
                        ", y = " + std::to_string(e.y) +
                        " in one bin, which int16 cannot count; raise T, or pass size=sensor_size for float32");
    }
    ++count;
  });
}

void area_frames(const Event* events, int64_t n_events, int64_t T, Size sensor, Size target, float* frames) {
  const AreaTable columns(sensor.width, target.width);
  const AreaTable rows(sensor.height, target.height);
  const auto run = columns.taps == 2 && rows.taps == 2 ? spread<2> : spread<0>;
  run(events, n_events, T, sensor, target, columns, rows, frames);
}

}  // namespace tmkt
