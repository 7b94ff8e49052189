// tmkt::camera_frames and tmkt::camera_events on the CPU: torch's threads share recordings and bands of their rows.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "camera/camera_op.h"
#include "camera/camera_simd.h"
#include "common/cpu.h"

namespace tmkt {
namespace {

constexpr int64_t kBandPixels = 4096;  // of a sensor that a thread takes at once

// Counts the events of recording b. Threads that share a recording (kShared) add their parts atomically.
template <bool kShared>
class FrameSink final : public EventSink {
 public:
  FrameSink(const CameraScene& scene, const CameraFrames& frames, int64_t b)
      : scene_(scene), frames_(frames), b_(b), ends_(frames.ends + b * frames.T) {}

  void take(const FiredEvent* events, int64_t count) override {
    for (int64_t i = 0; i < count; ++i) {
      const FiredEvent event = events[i];
      // Neighbours in the list are rarely in different bins.
      while (bin_ + 1 < frames_.T && event.time_us >= ends_[bin_]) ++bin_;
      while (bin_ > 0 && event.time_us < ends_[bin_ - 1]) --bin_;
      const int64_t plane = ((bin_ * scene_.B + b_) * 2 + event.on) * frames_.width * frames_.height;
      frames_.counts ? count_at(plane + event.y * frames_.width + event.x) : spread(plane, event.x, event.y);
    }
  }

  bool full() const { return full_; }

 private:
  void count_at(int64_t at) {
    int16_t& count = frames_.counts[at];
    if (count == std::numeric_limits<int16_t>::max()) {
      full_ = true;
    } else {
      ++count;
    }
  }

  void spread(int64_t plane, int64_t x, int64_t y) {
    const int32_t* column = frames_.columns + x * (1 + frames_.column_taps);
    const int32_t* row = frames_.rows + y * (1 + frames_.row_taps);
    int64_t* cell = frames_.parts + plane + row[0] * frames_.width + column[0];
    for (int64_t j = 1; j <= frames_.row_taps; ++j, cell += frames_.width) {
      for (int64_t i = 0; i < frames_.column_taps; ++i) {
        add(cell[i], static_cast<int64_t>(row[j]) * column[1 + i]);
      }
    }
  }

  static void add(int64_t& sum, int64_t parts) {
    if constexpr (kShared) {
      std::atomic_ref<int64_t>(sum).fetch_add(parts, std::memory_order_relaxed);
    } else {
      sum += parts;
    }
  }

  const CameraScene& scene_;
  const CameraFrames& frames_;
  int64_t b_;
  const int32_t* ends_;
  int64_t bin_ = 0;
  bool full_ = false;
};

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void frames(const CameraScene& scene, const CameraFrames& frames) const {
    const int64_t band = std::max<int64_t>(1, kBandPixels / scene.width);
    const int64_t bands = (scene.height + band - 1) / band;
    std::atomic<bool> full = false;
    torch::stable::parallel_for(0, scene.B * bands, 1, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t b = begin / bands, first = begin % bands, last = std::min(bands, first + end - begin);
        const CameraSample sample(scene, b);
        const auto run = [&](auto sink) {
          TMKT_PICK_SIMD(camera_rows)(scene, sample, first * band, std::min(last * band, scene.height), sink);
          if (sink.full()) full = true;
        };
        if (last - first == bands) {
          run(FrameSink<false>(scene, frames, b));
        } else {
          run(FrameSink<true>(scene, frames, b));
        }
        begin += last - first;
      }
    });
    check(!full,
          "simulate_frames: more than 32767 events of one polarity at a pixel in one bin, which int16 cannot count; "
          "raise T or the threshold, or pass size");
    if (!frames.frames) return;
    const int64_t cells = frames.T * scene.B * 2 * frames.width * frames.height;
    torch::stable::parallel_for(0, cells, kGrainElements, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) frames.frames[i] = static_cast<float>(frames.parts[i]) * kEventsPerPart;
    });
  }
};

// An event as in csrc/events/event.h.
#pragma pack(push, 1)
struct EventRecord {
  int16_t x, y;
  int64_t t;
  uint8_t p;
};
#pragma pack(pop)

class EventList final : public EventSink {
 public:
  void take(const FiredEvent* events, int64_t count) override {
    check(static_cast<int64_t>(records_.size()) + count <= kMostEvents, "the simulation makes more than ", kMostEvents,
          " events: raise threshold or refractory_us");
    for (int64_t i = 0; i < count; ++i) {
      records_.push_back({events[i].x, events[i].y, events[i].time_us, events[i].on});
    }
  }

  // In order of time; at one time, in order of rows and columns; at one pixel, as they came.
  const std::vector<EventRecord>& sorted() {
    std::stable_sort(records_.begin(), records_.end(), [](const EventRecord& a, const EventRecord& b) {
      return a.t != b.t ? a.t < b.t : a.y != b.y ? a.y < b.y : a.x < b.x;
    });
    return records_;
  }

 private:
  static constexpr int64_t kMostEvents = int64_t{1} << 26;
  std::vector<EventRecord> records_;
};

// Events of the one recording of a scene in rows first..last, as bytes [N, 13].
Tensor camera_events(const Tensor& display, const Tensor& times, const Tensor& shares, const Tensor& n_steps,
                     const Tensor& sensor, const Tensor& seeds, int64_t width, int64_t height, int64_t first,
                     int64_t last) {
  const CameraScene scene =
      camera_scene("camera_events", {display, times, shares, n_steps, sensor, seeds, width, height});
  check(scene.B == 1, "camera_events: expected one recording, got ", scene.B);
  check(0 <= first && first <= last && last <= height, "camera_events: expected rows from 0 to ", height);
  EventList events;
  TMKT_PICK_SIMD(camera_rows)(scene, CameraSample(scene, 0), first, last, events);
  const std::vector<EventRecord>& records = events.sorted();
  const int64_t n = static_cast<int64_t>(records.size());
  Tensor out = new_empty(display, {n, static_cast<int64_t>(sizeof(EventRecord))}, ScalarType::Byte);
  if (n > 0) memcpy(out.data_ptr(), records.data(), n * sizeof(EventRecord));
  return out;
}

}  // namespace

// The schemas of tmkt_kernels/ops/camera/op.py, see lif_cpu.cpp.
#define TMKT_CAMERA_SCENE \
  "Tensor display, Tensor times, Tensor shares, Tensor n_steps, Tensor sensor, Tensor seeds, int width, int height"
STABLE_TORCH_LIBRARY_FRAGMENT(tmkt, m) {
  m.def("camera_frames(" TMKT_CAMERA_SCENE
        ", Tensor ends, Tensor? columns, Tensor? rows, int out_width, int out_height) -> Tensor");
  m.def("camera_events(" TMKT_CAMERA_SCENE ", int first_row, int last_row) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tmkt, CPU, m) {
  m.impl("camera_frames", TORCH_BOX(&camera_frames<Cpu>));
  m.impl("camera_events", TORCH_BOX(&camera_events));
}

}  // namespace tmkt
