// tmkt::camera_frames on CUDA. A thread simulates one pixel over all steps, with its state in registers.
#include "camera/camera_op.h"
#include "camera/camera_pixel.h"
#include "common/cuda.h"

namespace tmkt {
namespace {

// Counts the events of one pixel; kSpread: in parts of cells, which pixels share.
template <bool kSpread>
class PixelCounter {
 public:
  __device__ __forceinline__ PixelCounter(const CameraScene& scene, const CameraFrames& frames, int64_t b, int64_t x,
                                          int64_t y)
      : frames_(frames), b_(b), samples_(scene.B), x_(x), y_(y), ends_(frames.ends + b * frames.T) {}

  __device__ __forceinline__ void operator()(int32_t time_us, bool on) {
    while (bin_ + 1 < frames_.T && time_us >= ends_[bin_]) ++bin_;
    const int64_t plane = ((bin_ * samples_ + b_) * 2 + on) * frames_.width * frames_.height;
    if constexpr (kSpread) {
      spread(plane);
    } else {
      int16_t& count = frames_.counts[plane + y_ * frames_.width + x_];
      require(count < INT16_MAX, "more than 32767 events of one polarity at a pixel in one bin", "simulate_frames");
      ++count;
    }
  }

  __device__ __forceinline__ void rewind() { bin_ = 0; }

 private:
  __device__ __forceinline__ void spread(int64_t plane) const {
    const int32_t* column = frames_.columns + x_ * (1 + frames_.column_taps);
    const int32_t* row = frames_.rows + y_ * (1 + frames_.row_taps);
    int64_t* cell = frames_.parts + plane + row[0] * frames_.width + column[0];
    for (int64_t j = 1; j <= frames_.row_taps; ++j, cell += frames_.width) {
      for (int64_t i = 0; i < frames_.column_taps; ++i) {
        const int64_t parts = static_cast<int64_t>(row[j]) * column[1 + i];
        // Integers, so that the order does not matter.
        if (parts) atomicAdd(reinterpret_cast<unsigned long long*>(cell + i), static_cast<unsigned long long>(parts));
      }
    }
  }

  const CameraFrames& frames_;
  int64_t b_, samples_, x_, y_;
  const int32_t* ends_;
  int64_t bin_ = 0;
};

template <bool kSpread>
__global__ void __launch_bounds__(kThreads) frames_kernel(const CameraScene scene, const CameraFrames frames) {
  const int64_t pixels = scene.width * scene.height;
  const Division block(blockIdx.x, (pixels + kThreads - 1) / kThreads);
  const int64_t number = block.remainder * kThreads + threadIdx.x;
  if (number >= pixels) return;
  const CameraSample sample(scene, block.quotient);
  const Division place(number, scene.width);
  const int64_t x = place.remainder, y = place.quotient;
  PixelCounter<kSpread> count(scene, frames, block.quotient, x, y);

  CameraPixel<float> pixel;
  pixel.start(MultiplyWords{}, sample.sensor, sample.seed, static_cast<uint32_t>(number),
              light_at(sample, scene.display_width, 0, x, y));
  float light = pixel.level;
  for (int32_t step = 1; step < sample.n_steps; ++step) {
    const StepTimes times = sample.times[step];
    if (!sample.rests(step)) light = log2_of(light_at(sample, scene.display_width, step, x, y));
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
  if (pixel.noise_at >= sample.duration_us()) return;
  count.rewind();
  add_noise(sample, scene.display_width, scene.width, number, pixel.noise_at, count);
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
      return;
    }
    launch.blocks(frames_kernel<true>, blocks, 0, scene, frames);
    const int64_t cells = frames.T * scene.B * 2 * frames.width * frames.height;
    launch(parts_kernel, cells, 0, frames, cells);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) { m.impl("camera_frames", TORCH_BOX(&camera_frames<Cuda>)); }

}  // namespace tmkt
