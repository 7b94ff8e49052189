// Arguments of the simulated camera, for CPU and CUDA; mirrors tmkt_kernels/ops/camera/scene.py and frames.py.
#pragma once

#include "common/numeric.h"

namespace tmkt {

// Columns of `CameraScene::sensor`.
struct SensorValues {
  float on, off;  // thresholds, log2 units
  float mismatch;
  float refractory_us;
  float leak;                        // log2 units per us
  float noise_wait_us, hot_wait_us;  // mean wait between background events, times ln 2
  float dead_below, hot_from;
  float noise_on_share;
  float noise_dimming;
  float dark;
};
constexpr int kSensorValues = sizeof(SensorValues) / sizeof(float);

// One step of a recording.
struct StepTimes {
  int32_t corner;  // upper left pixel of the view in the display, flat
  int32_t begin_us, duration_us;
};
struct StepShares {
  float right, down;  // part of a pixel by which the view lies right of and below the corner
  float follow;       // share of the way to the new light that the photoreceptor goes
};

struct CameraScene {
  int64_t B, S;  // recordings, steps of the longest
  int64_t display_width, display_height;
  int64_t width, height;       // of the sensor
  const float* display;        // [B, display_height, display_width], intensity plus dark
  const StepTimes* times;      // [B, S]
  const StepShares* shares;    // [B, S]
  const int32_t* n_steps;      // [B], steps of each; the first is the initial view
  const SensorValues* sensor;  // [B]
  const int64_t* seeds;        // [B]
};

// Where events are counted. With tables, an event spreads over cells in whole parts; without, a cell is a pixel.
struct CameraFrames {
  int64_t T;
  int64_t width, height;
  const int32_t* ends;     // [B, T], first microsecond after each bin
  const int32_t* columns;  // [sensor width, 1 + column_taps]: first cell, parts; or null
  const int32_t* rows;     // [sensor height, 1 + row_taps]
  int64_t column_taps, row_taps;
  int16_t* counts;  // [T, B, 2, height, width] without tables
  int64_t* parts;   // the same with tables
  float* frames;    // parts as events
};

constexpr float kEventsPerPart = 0x1p-30f;  // 2^15 parts along each axis, see tmkt_kernels/ops/camera/area.py

// Recording b of a scene.
struct CameraSample {
  const float* display;
  const StepTimes* times;
  const StepShares* shares;
  int32_t n_steps;
  const SensorValues& sensor;  // not a copy, which would take twelve registers on a GPU
  uint64_t seed;

  TMKT_INLINE CameraSample(const CameraScene& scene, int64_t b)
      : display(scene.display + b * scene.display_height * scene.display_width),
        times(scene.times + b * scene.S),
        shares(scene.shares + b * scene.S),
        n_steps(scene.n_steps[b]),
        sensor(scene.sensor[b]),
        seed(static_cast<uint64_t>(scene.seeds[b])) {}

  // Whether a step shows what the one before it showed.
  TMKT_INLINE bool rests(int32_t step) const {
    return times[step].corner == times[step - 1].corner && shares[step].right == shares[step - 1].right &&
           shares[step].down == shares[step - 1].down;
  }

  TMKT_INLINE int32_t duration_us() const { return times[n_steps - 1].begin_us + times[n_steps - 1].duration_us; }
};

}  // namespace tmkt
