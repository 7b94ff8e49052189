// tmkt::camera_frames and tmkt::camera_events: checks and outputs around a backend, which the CPU and CUDA files
// define.
#pragma once

#include "camera/camera_args.h"
#include "common/stable.h"

namespace tmkt {

template <typename T>
const T* camera_table(const char* op, const char* name, const Tensor& table, int64_t values, const Tensor& display) {
  const int64_t B = display.size(0);
  const int64_t dim = table.dim();
  check_tensor(op, name, table, dim, display);
  check_dtype(op, name, table, std::is_same_v<T, StepTimes> ? ScalarType::Int : ScalarType::Float);
  check(table.size(0) == B && table.size(dim - 1) == values, op, ": ", name, ": expected B = ", B, " and ", values,
        " values, got ", table.size(0), " and ", table.size(dim - 1));
  return data<T>(table);
}

struct SceneTensors {
  const Tensor &display, &times, &shares, &n_steps, &sensor, &seeds;
  int64_t width, height;
};

inline CameraScene camera_scene(const char* op, const SceneTensors& tensors) {
  const auto& [display, times, shares, n_steps, sensor, seeds, width, height] = tensors;
  check_tensor(op, "display", display, 3, display);
  check_dtype(op, "display", display, ScalarType::Float);
  check_tensor(op, "times", times, 3, display);
  check_tensor(op, "shares", shares, 3, display);
  check_tensor(op, "sensor", sensor, 2, display);
  check_tensor(op, "n_steps", n_steps, 1, display);
  check_dtype(op, "n_steps", n_steps, ScalarType::Int);
  check_tensor(op, "seeds", seeds, 1, display);
  check_dtype(op, "seeds", seeds, ScalarType::Long);
  const int64_t B = display.size(0);
  check(n_steps.size(0) == B && seeds.size(0) == B, op, ": n_steps and seeds: expected B = ", B);
  check(shares.size(1) == times.size(1), op, ": shares: expected as many steps as times");
  check(width > 0 && height > 0 && width < display.size(2) && height < display.size(1), op,
        ": display: expected more than the sensor's ", width, " x ", height, " pixels");
  return {.B = B,
          .S = times.size(1),
          .display_width = display.size(2),
          .display_height = display.size(1),
          .width = width,
          .height = height,
          .display = data<float>(display),
          .times = camera_table<StepTimes>(op, "times", times, 3, display),
          .shares = camera_table<StepShares>(op, "shares", shares, 3, display),
          .n_steps = data<int32_t>(n_steps),
          .sensor = camera_table<SensorValues>(op, "sensor", sensor, kSensorValues, display),
          .seeds = data<int64_t>(seeds)};
}

// Parts per cell along one axis; 0 without a table.
inline int64_t camera_taps(const char* name, const OptionalTensor& table, int64_t pixels, const Tensor& display) {
  if (!table) return 0;
  check_tensor("camera_frames", name, *table, 2, display);
  check_dtype("camera_frames", name, *table, ScalarType::Int);
  check(table->size(0) == pixels && table->size(1) > 1, "camera_frames: ", name, ": expected a row for each of ",
        pixels, " pixels");
  return table->size(1) - 1;
}

template <typename Backend>
Tensor camera_frames(const Tensor& display, const Tensor& times, const Tensor& shares, const Tensor& n_steps,
                     const Tensor& sensor, const Tensor& seeds, int64_t width, int64_t height, const Tensor& ends,
                     const OptionalTensor& columns, const OptionalTensor& rows, int64_t out_width, int64_t out_height) {
  const CameraScene scene =
      camera_scene("camera_frames", {display, times, shares, n_steps, sensor, seeds, width, height});
  check_tensor("camera_frames", "ends", ends, 2, display);
  check_dtype("camera_frames", "ends", ends, ScalarType::Int);
  check(ends.size(0) == scene.B, "camera_frames: ends: expected B = ", scene.B);
  check(columns.has_value() == rows.has_value(), "camera_frames: columns and rows: expected both or none");
  check(columns || (out_width == width && out_height == height),
        "camera_frames: expected tables for frames of another size than the sensor's");
  CameraFrames frames{.T = ends.size(1),
                      .width = out_width,
                      .height = out_height,
                      .ends = data<int32_t>(ends),
                      .columns = data<int32_t>(columns),
                      .rows = data<int32_t>(rows),
                      .column_taps = camera_taps("columns", columns, width, display),
                      .row_taps = camera_taps("rows", rows, height, display),
                      .counts = nullptr,
                      .parts = nullptr,
                      .frames = nullptr};
  const ScalarType dtype = columns ? ScalarType::Float : ScalarType::Short;
  Tensor out = torch::stable::new_zeros(display, {frames.T, scene.B, 2, out_height, out_width}, dtype);
  if (out.numel() == 0) return out;
  if (columns) {
    Tensor parts = torch::stable::new_zeros(display, {out.numel()}, ScalarType::Long);
    frames.parts = static_cast<int64_t*>(parts.data_ptr());
    frames.frames = static_cast<float*>(out.data_ptr());
    Backend(display).frames(scene, frames);
  } else {
    frames.counts = static_cast<int16_t*>(out.data_ptr());
    Backend(display).frames(scene, frames);
  }
  return out;
}

}  // namespace tmkt
