// What the decoders share: reading words, counters of time that begin again at zero, and events in order of time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "events/event.h"

namespace tmkt {

// Cameras write some events late: an arbiter holds them back, buffers overtake each other. By microseconds in what
// we have seen; this is where we stop to believe it.
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

// A counter of `bits` bits, one every `unit_us`, as the time that it stands for, in units. It has begun again where it
// falls by half its range or more, and has stepped back over that point where it rises by all but the jitter.
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

// Where the stretches end within which time does not step back.
class Runs {
 public:
  // Before the event of this index, which is earlier than one before it.
  void step_back(Event* begin, Event* end, int64_t newest, int64_t t) {
    if (newest - t > kJitterUs) reject(end - begin, backwards(newest, t));
    ends_.push_back(end);
  }

  // Puts the events in order of time, those of one time as they came.
  void merge(Event* begin, Event* end) {
    ends_.push_back(end);
    merge(begin, 0, ends_.size() - 1);
  }

 private:
  static bool earlier(const Event& a, const Event& b) { return a.t < b.t; }

  // What begins at `begin` and holds the runs from `first` to `last`. They overlap by little, and only that is moved.
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

// Writes events as they come and puts them in order at the end. An event that is earlier than one before it by more
// than the jitter throws std::invalid_argument. The runs lie elsewhere, so that the compiler keeps this in registers.
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

// In the Recorder's place where the events are only counted.
struct Tally {
  int64_t count = 0;
  void add(int64_t, int64_t, int64_t, bool) { ++count; }
};

// Runs `decode(sink)` on one of the two: how many events there are.
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
