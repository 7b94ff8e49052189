// Pixels of camera_simd.cpp, at every SIMD level.
#pragma once

#include "camera/camera_args.h"
#include "common/simd.h"

namespace tmkt {

struct FiredEvent {
  int16_t x, y;
  int32_t time_us;
  bool on;
};

// Takes the events of a recording as they come, `count` at a time.
struct EventSink {
  virtual void take(const FiredEvent* events, int64_t count) = 0;

 protected:
  ~EventSink() = default;
};

// Simulates rows first..last of a sensor, step by step.
TMKT_DECLARE_SIMD(void camera_rows(const CameraScene& scene, const CameraSample& sample, int64_t first, int64_t last,
                                   EventSink& sink))

}  // namespace tmkt
