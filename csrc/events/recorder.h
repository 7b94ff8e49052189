// Helpers shared by the decoders: reading words, time counters that wrap, and sorting of events by time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "events/event.h"

namespace tmkt {

// Cameras write some events late, because an arbiter holds them back or buffers overtake one another. In recordings we
// have seen, they are microseconds late; beyond this limit, the recording is rejected.
constexpr int64_t kJitterUs = 10'000;

template <class T>
T little_endian(const uint8_t* bytes) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) value = static_cast<T>(value << 8 | bytes[i]);
  return value;
}

inline uint32_t big_endian(const uint8_t* b) {
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
}

// Unwraps a counter of `bits` bits, which advances every `unit_us`, to time in units. The counter has wrapped if it
// falls by half its range or more. It has stepped back over the wrap if it rises by its range less the jitter.
class Counter {
 public:
  Counter(int bits, int64_t unit_us) : range_(int64_t{1} << bits), jitter_(kJitterUs / unit_us + 1) {}

  int64_t operator()(int64_t value) {
    if (started_) {
      if (last_ - value >= range_ / 2) turns_ += range_;
      if (value - last_ >= range_ - jitter_) turns_ -= range_;
    }
    started_ = true;
    last_ = value;
    return turns_ + value;
  }

 private:
  int64_t range_, jitter_;
  int64_t turns_ = 0, last_ = 0;
  bool started_ = false;
};

// Ends of the runs, within which time does not step back.
class Runs {
 public:
  // Call before the event of this index if it is earlier than one before it.
  void step_back(Event* begin, Event* end, int64_t newest, int64_t t) {
    if (newest - t > kJitterUs) reject(end - begin, backwards(newest, t));
    ends_.push_back(end);
  }

  // Sorts the events by time; events of the same time keep their order.
  void merge(Event* begin, Event* end) {
    ends_.push_back(end);
    merge(begin, 0, ends_.size() - 1);
  }

 private:
  static bool earlier(const Event& a, const Event& b) { return a.t < b.t; }

  // Merges the runs from `first` to `last`, which begin at `begin`. They overlap little, and only the overlap is moved.
  void merge(Event* begin, size_t first, size_t last) {
    if (first == last) return;
    const size_t half = first + (last - first) / 2;
    Event *const middle = ends_[half], *const end = ends_[last];
    merge(begin, first, half);
    merge(middle, half + 1, last);
    Event* const from = std::upper_bound(begin, middle, *middle, earlier);
    Event* const to = std::lower_bound(middle, end, *(middle - 1), earlier);
    std::inplace_merge(from, middle, to, earlier);
  }

  std::vector<Event*> ends_;
};

// Writes events as they arrive and sorts them at the end. An event that is earlier than one before it by more than the
// jitter throws std::invalid_argument. The runs are a separate object, so that this one stays in registers.
class Recorder {
 public:
  Recorder(Event* out, Runs& runs) : begin_(out), end_(out), runs_(runs) {}

  void add(int64_t x, int64_t y, int64_t t, bool on) {
    if (t < newest_) {
      runs_.step_back(begin_, end_, newest_, t);
    } else {
      newest_ = t;
    }
    *end_++ = Event{static_cast<int16_t>(x), static_cast<int16_t>(y), t, on};
  }

  int64_t finish() {
    runs_.merge(begin_, end_);
    return end_ - begin_;
  }

 private:
  Event *begin_, *end_;
  int64_t newest_ = std::numeric_limits<int64_t>::min();
  Runs& runs_;
};

// Replaces Recorder where events are only counted.
struct Tally {
  int64_t count = 0;
  void add(int64_t, int64_t, int64_t, bool) { ++count; }
};

// Runs `decode(sink)` on a Recorder, or without `out` on a Tally; returns the number of events.
template <class Decode>
int64_t record(Event* out, Decode decode) {
  if (out == nullptr) {
    Tally tally;
    decode(tally);
    return tally.count;
  }
  Runs runs;
  Recorder recorder(out, runs);
  decode(recorder);
  return recorder.finish();
}

}  // namespace tmkt
