#include "events/frames.h"

#include <bit>
#include <limits>
#include <string>
#include <vector>

namespace tmkt {
namespace {

constexpr float kEventsPerPart = 0x1p-30f;  // 2^15 parts along each axis, see tmkt_kernels/ops/camera/area.py

// The first time after each bin, relative to bins.begin: the smallest d with d * T >= (k + 1) * duration. Comparing
// with it saves a division per event.
std::vector<uint64_t> bin_ends(Bins bins) {
  const uint64_t T = bins.T, duration = bins.duration;
  std::vector<uint64_t> ends(T);
  for (uint64_t k = 1; k <= T; ++k) {
    // ceil(k * duration / T), in two parts so that nothing overflows
    ends[k - 1] = k * (duration / T) + (k * (duration % T) + T - 1) / T;
  }
  return ends;
}

[[noreturn]] void reject_backwards(int64_t index, int64_t from, int64_t to) {
  reject(index, backwards(from, to) + "; sort with events[np.argsort(events['t'], kind='stable')]");
}

[[noreturn]] void reject_outside(int64_t index, int64_t t, Bins bins) {
  reject(index, "t = " + std::to_string(t) + " us lies outside the span of " + std::to_string(bins.duration) +
                    " us that begins at " + std::to_string(bins.begin) + " us");
}

// For event `index` after the last bin. If the last event is earlier, time steps back, which is the fault to name.
[[noreturn]] void reject_late(const Event* events, int64_t n_events, int64_t index, Bins bins) {
  for (int64_t i = index + 1; events[n_events - 1].t < events[index].t; ++i) {
    if (events[i].t < events[i - 1].t) reject_backwards(i, events[i - 1].t, events[i].t);
  }
  reject_outside(index, events[index].t, bins);
}

// Calls add(bin, event, event_index).
template <class Add>
void for_each_event(const Event* events, int64_t n_events, Bins bins, Size sensor, Add add) {
  const std::vector<uint64_t> ends = bin_ends(bins);
  int64_t bin = 0;
  int64_t last = bins.begin;
  for (int64_t i = 0; i < n_events; ++i) {
    const Event e = events[i];
    if (e.t < last) i == 0 ? reject_outside(i, e.t, bins) : reject_backwards(i, last, e.t);
    // As unsigned, a negative coordinate is outside any sensor too.
    if (static_cast<uint64_t>(e.x) >= static_cast<uint64_t>(sensor.width) ||
        static_cast<uint64_t>(e.y) >= static_cast<uint64_t>(sensor.height)) {
      reject(i, "x = " + std::to_string(e.x) + ", y = " + std::to_string(e.y) + " lies beyond the sensor of " +
                    std::to_string(sensor.width) + " x " + std::to_string(sensor.height) +
                    " (width x height); check sensor_size");
    }
    last = e.t;
    const uint64_t since_begin = static_cast<uint64_t>(e.t) - static_cast<uint64_t>(bins.begin);
    while (since_begin >= ends[bin]) {
      if (++bin == bins.T) reject_late(events, n_events, i, bins);
    }
    add(bin, e, i);
  }
}

// Turns the sums of parts of `n_events` into events, rounded once, and leaves zeros.
void take_events(std::vector<int64_t>& parts, int64_t n_events, float* frame) {
  const size_t cells = parts.size();
  if (n_events < int64_t{1} << 22) {
    // Below 2^52, a sum is the mantissa of a double. Processors before AVX-512 convert doubles only in vectors.
    for (size_t i = 0; i < cells; ++i) {
      const double sum = std::bit_cast<double>(parts[i] | std::bit_cast<int64_t>(0x1p52)) - 0x1p52;
      frame[i] = static_cast<float>(sum) * kEventsPerPart;
      parts[i] = 0;
    }
  } else {
    for (size_t i = 0; i < cells; ++i) {
      frame[i] = static_cast<float>(parts[i]) * kEventsPerPart;
      parts[i] = 0;
    }
  }
}

// kTaps > 0 fixes the number of taps of both axes at compile time.
template <int kTaps>
void spread(const Event* events, int64_t n_events, Bins bins, Size sensor, Size target, AreaShares columns,
            AreaShares rows, float* frames) {
  const int64_t nx = kTaps ? kTaps : columns.taps;
  const int64_t ny = kTaps ? kTaps : rows.taps;
  const int64_t plane = target.width * target.height;
  std::vector<int64_t> parts(2 * plane);  // of one bin at a time, which the cache holds
  int64_t open = 0, first = 0;            // that bin, and its first event
  const auto close = [&](int64_t end) { take_events(parts, end - first, frames + open * 2 * plane); };
  for_each_event(events, n_events, bins, sensor, [&](int64_t bin, const Event& e, int64_t index) {
    if (bin != open) {
      close(index);
      open = bin;
      first = index;
    }
    const int32_t* column = columns.table + e.x * (1 + nx);
    const int32_t* row = rows.table + e.y * (1 + ny);
    int64_t* cell = parts.data() + (e.p != 0) * plane + row[0] * target.width + column[0];
    for (int64_t j = 1; j <= ny; ++j, cell += target.width) {
      for (int64_t i = 0; i < nx; ++i) cell[i] += static_cast<int64_t>(row[j]) * column[1 + i];
    }
  });
  close(n_events);
}

}  // namespace

void count_frames(const Event* events, int64_t n_events, Bins bins, Size sensor, int16_t* frames) {
  const int64_t plane = sensor.width * sensor.height;
  for_each_event(events, n_events, bins, sensor, [&](int64_t bin, const Event& e, int64_t index) {
    int16_t& count = frames[(2 * bin + (e.p != 0)) * plane + e.y * sensor.width + e.x];
    if (count == std::numeric_limits<int16_t>::max()) {
      reject(index, "more than 32767 events of one polarity at x = " + std::to_string(e.x) +
                        ", y = " + std::to_string(e.y) +
                        " in one bin, which int16 cannot count; raise T, or pass size=sensor_size for float32");
    }
    ++count;
  });
}

void area_frames(const Event* events, int64_t n_events, Bins bins, Size sensor, Size target, AreaShares columns,
                 AreaShares rows, float* frames) {
  const auto run = columns.taps == 2 && rows.taps == 2 ? spread<2> : spread<0>;
  run(events, n_events, bins, sensor, target, columns, rows, frames);
}

}  // namespace tmkt
