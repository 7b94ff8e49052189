// tmkt::camera_frames on CUDA. A thread simulates one pixel over all steps, with its state in registers.
#include "camera/camera_op.h"
#include "camera/camera_pixel.h"
#include "common/cuda.h"

namespace tmkt {
namespace {

// Counts the events of pixel (x, y) of recording b; kSpread: in parts of cells, which pixels share. It holds 32 bits of
// each number, because the kernel keeps it in registers.
template <bool kSpread>
struct PixelCounter {
  const CameraScene& scene;
  const CameraFrames& frames;
  int32_t b, x, y, bin;

  __device__ __forceinline__ void operator()(int32_t time_us, bool on) {
    const int32_t* ends = frames.ends + b * frames.T;
    while (bin + 1 < frames.T && time_us >= ends[bin]) ++bin;
    const int64_t plane = ((bin * scene.B + b) * 2 + on) * frames.width * frames.height;
    if constexpr (kSpread) {
      spread(plane);
    } else {
      int16_t& count = frames.counts[plane + y * frames.width + x];
      require(count < INT16_MAX, "more than 32767 events of one polarity at a pixel in one bin", "simulate_frames");
      ++count;
    }
  }

 private:
  __device__ __forceinline__ void spread(int64_t plane) const {
    const int32_t* column = frames.columns + x * (1 + frames.column_taps);
    const int32_t* row = frames.rows + y * (1 + frames.row_taps);
    int64_t* cell = frames.parts + plane + row[0] * frames.width + column[0];
#pragma unroll 1
    for (int32_t j = 1; j <= static_cast<int32_t>(frames.row_taps); ++j, cell += frames.width) {
#pragma unroll 1
      for (int32_t i = 0; i < static_cast<int32_t>(frames.column_taps); ++i) {
        const int64_t parts = static_cast<int64_t>(row[j]) * column[1 + i];
        // Integers, so that the order does not matter.
        if (parts) atomicAdd(reinterpret_cast<unsigned long long*>(cell + i), static_cast<unsigned long long>(parts));
      }
    }
  }
};

// The pixel of a thread; `number` is beyond the last for threads without one.
struct Place {
  int32_t b, number, x, y;

  __device__ __forceinline__ explicit Place(const CameraScene& scene) {
    const int32_t pixels = static_cast<int32_t>(scene.width * scene.height), width = static_cast<int32_t>(scene.width);
    const int32_t blocks = (pixels + kThreads - 1) / kThreads;
    b = blockIdx.x / blocks;
    number = static_cast<int32_t>(blockIdx.x % blocks) * kThreads + threadIdx.x;
    x = number % width;
    y = number / width;
  }
};

// Eight blocks leave 64 registers to a thread. Without the number, the compiler would take 40 and spill.
template <bool kSpread>
__global__ void __launch_bounds__(kThreads, 8) frames_kernel(const CameraScene scene, const CameraFrames frames) {
  const Place place(scene);
  if (place.number >= scene.width * scene.height) return;
  const CameraSample sample(scene, place.b);
  PixelCounter<kSpread> count{scene, frames, place.b, place.x, place.y, 0};
  CameraPixel<float> pixel;
  pixel.start(MultiplyWords{}, sample.sensor, sample.seed, static_cast<uint32_t>(place.number),
              light_at(sample, scene.display_width, 0, place.x, place.y));
  float light = pixel.level;
  for (int32_t step = 1; step < sample.n_steps; ++step) {
    const StepTimes times = sample.times[step];
    if (!sample.rests(step)) light = log2_of(light_at(sample, scene.display_width, step, place.x, place.y));
    const float us = static_cast<float>(times.duration_us), sunk = sample.sensor.leak * us;
    const float before = pixel.level;
    pixel.level = before + sample.shares[step].follow * (light - before);
    const float end = pixel.level + sunk;
    if (pixel.blind >= 0.0f ? pixel.blind < us : end >= pixel.high || end <= pixel.low) {
      pixel.fire(
          before, end, us, sample.sensor.refractory_us, [](bool fires) { return fires; },
          [&](bool fires, bool up, float time) {
            if (fires) count(times.begin_us + min(to_ints(time), times.duration_us - 1), up);
          });
    }
    if (pixel.blind >= 0.0f) pixel.blind -= us;
    pixel.high -= sunk;
    pixel.low -= sunk;
  }
}

// A kernel of its own, because its registers would spill those of the other.
template <bool kSpread>
__global__ void __launch_bounds__(kThreads) noise_kernel(const CameraScene scene, const CameraFrames frames) {
  const Place place(scene);
  if (place.number >= scene.width * scene.height) return;
  const CameraSample sample(scene, place.b);
  uint32_t words[4];
  philox(MultiplyWords{}, sample.seed, static_cast<uint32_t>(place.number), 2, words);
  const int32_t first = first_noise<float>(sample.sensor, words);
  if (first >= sample.duration_us()) return;
  add_noise(sample, scene.display_width, scene.width, place.number, first,
            PixelCounter<kSpread>{scene, frames, place.b, place.x, place.y, 0});
}

__global__ void __launch_bounds__(kThreads) parts_kernel(const CameraFrames frames, int64_t cells) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < cells) frames.frames[i] = static_cast<float>(frames.parts[i]) * kEventsPerPart;
}

struct Cuda {
  CudaLaunch launch;
  explicit Cuda(const Tensor& like) : launch(like) {}

  void frames(const CameraScene& scene, const CameraFrames& frames) const {
    const int64_t blocks = scene.B * ((scene.width * scene.height + kThreads - 1) / kThreads);
    if (!frames.frames) {
      launch.blocks(frames_kernel<false>, blocks, 0, scene, frames);
      launch.blocks(noise_kernel<false>, blocks, 0, scene, frames);
      return;
    }
    launch.blocks(frames_kernel<true>, blocks, 0, scene, frames);
    launch.blocks(noise_kernel<true>, blocks, 0, scene, frames);
    const int64_t cells = frames.T * scene.B * 2 * frames.width * frames.height;
    launch(parts_kernel, cells, 0, frames, cells);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) { m.impl("camera_frames", TORCH_BOX(&camera_frames<Cuda>)); }

}  // namespace tmkt
