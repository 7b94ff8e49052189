// tmkt::mixup_fwd and tmkt::mixup_bwd on CUDA. A thread makes kPack neighbouring pixels, 16 bytes, at up to kSteps
// steps, so that it reads a static image and computes the address of a pixel (divisions, look-ups) only once.
#include "common/cuda.h"
#include "mixup/mixup_op.h"

namespace tmkt {
namespace {

constexpr int kSteps = 16;  // longer sequences are split, so that a few samples make enough threads too
constexpr int kAhead = 4;   // loads that a thread has in flight before it uses the first

__device__ __forceinline__ void require(bool condition, const char* message) {
  tmkt::require(condition, message, "time_step_mixup");
}

__device__ __forceinline__ void require_step(const MixupArgs& args, int64_t switch_step) {
  require(switch_step >= 0 && switch_step <= args.T, "switch_step: expected values in 0..T");
}

// Switch step and sources of sample b. All three are read before the first is checked.
struct Sample {
  int64_t switch_step, image, recording;

  __device__ __forceinline__ Sample(const MixupArgs& args, int64_t b)
      : switch_step(args.switch_step[b]),
        image(args.static_index ? args.static_index[b] : b),
        recording(args.event_index ? args.event_index[b] : b) {
    require_step(args, switch_step);
    require(image >= 0 && image < args.static_count, "static_index: expected indices of static's images");
    require(recording >= 0 && recording < args.event_count, "event_index: expected indices of events' recordings");
  }
};

template <int kPack>
__device__ __forceinline__ void scale(float factor, float (&row)[kPack]) {
#pragma unroll
  for (int j = 0; j < kPack; ++j) row[j] *= factor;
}

template <typename T, int kPack>
__device__ __forceinline__ void add(const Packed<T, kPack>& packed, float (&sum)[kPack]) {
  float row[kPack];
  unpack(packed, row);
#pragma unroll
  for (int j = 0; j < kPack; ++j) sum[j] += row[j];
}

template <int kPack>
__device__ __forceinline__ void store_pixels(PixelKind kind, const float (&row)[kPack], void* target, int64_t at) {
  if (kind == PixelKind::kFloat32) return store(row, static_cast<float*>(target) + at);
  if (kind == PixelKind::kBFloat16) return store(row, static_cast<BFloat16*>(target) + at);
  store(row, static_cast<Float16*>(target) + at);
}

// Work of a thread: pixels at, at + 1, .. of a row, in the steps begin..end.
struct Column {
  int64_t begin, end, row, at;
};

// Splits a flat work item into a column; returns false beyond the last step.
template <int kPack>
__device__ __forceinline__ bool locate(int64_t T, int64_t rows, int64_t pixels, Column* column) {
  const Division item(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, pixels / kPack);
  const Division row(item.quotient, rows);
  column->at = item.remainder * kPack;
  column->row = row.remainder;
  column->begin = row.quotient * kSteps;
  column->end = min(column->begin + kSteps, T);
  return column->begin < T;
}

template <int kPack>
int64_t items(int64_t T, int64_t rows, int64_t pixels) {
  return (T + kSteps - 1) / kSteps * rows * (pixels / kPack);
}

// target[t] = source[t] * factor, with rows source_step and target_step apart.
template <int kPack, typename Source, typename T>
__device__ __forceinline__ void convert(const Source* source, int64_t source_step, T* target, int64_t target_step,
                                        int64_t steps, float factor) {
  for (int64_t t = 0; t < steps; t += kAhead) {
    Packed<Source, kPack> ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (t + k < steps) ahead[k] = fetch<kPack>(source + (t + k) * source_step);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (t + k >= steps) break;
      float row[kPack];
      unpack(ahead[k], row);
      scale(factor, row);
      store(row, target + (t + k) * target_step);
    }
  }
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) forward_kernel(const MixupForwardArgs args) {
  Column column;
  if (!locate<kPack>(args.T, args.B * args.C, args.plane, &column)) return;
  const Division plane(column.row, args.C);
  const int64_t b = plane.quotient, c = plane.remainder;
  const Sample sample(args, b);
  const int64_t first_event = min(max(sample.switch_step, column.begin), column.end);

  const int64_t step = args.B * args.C * args.plane;
  T* mixed = static_cast<T*>(args.mixed) + column.row * args.plane + column.at;
  if (column.begin < first_event) {
    float row[kPack];
    with_pixel(args.static_kind, [&](auto type) {
      using Source = typename decltype(type)::type;
      load(static_cast<const Source*>(args.static_images) + sample.image * args.plane + column.at, row);
    });
    scale(args.static_scale, row);
#pragma unroll 4
    for (int64_t t = column.begin; t < first_event; ++t) store(row, mixed + t * step);
  }
  if (first_event < column.end) {
    const int64_t event_step = args.event_count * args.C * args.plane;
    const int64_t at = first_event * event_step + (sample.recording * args.C + c) * args.plane + column.at;
    with_pixel(args.event_kind, [&](auto type) {
      using Source = typename decltype(type)::type;
      convert<kPack>(static_cast<const Source*>(args.events) + at, event_step, mixed + first_event * step, step,
                     column.end - first_event, args.event_scale);
    });
  }
}

// Linked lists of the samples of each source, in ascending order: first[source], then next[b], with -1 at the end.
// If null, source i has sample i alone.
struct Samples {
  int64_t *first, *next;

  __device__ __forceinline__ int64_t of(int64_t source) const { return first ? first[source] : source; }
  __device__ __forceinline__ int64_t after(int64_t b) const { return next ? next[b] : -1; }
};

constexpr int kLinkSources = 1024;                  // per block
constexpr int kEach = 2, kTile = kEach * kThreads;  // samples per thread and per block at a time

struct LinkArgs {
  const int64_t* index;
  int64_t B, sources;
  Samples samples;

  constexpr int64_t blocks() const { return (sources + kLinkSources - 1) / kLinkSources; }
};

// Links the samples by image and by recording, in one launch. A block has kLinkSources sources and goes through all
// samples from the last to the first, a tile at a time, so that the work is linear in B. The samples of a tile join the
// lists of their sources in any order, before those of later tiles. Each then finds its successor, and the first of
// each list becomes its head, so that the links depend on the index alone.
__global__ void __launch_bounds__(kThreads) link_kernel(const LinkArgs images, const LinkArgs recordings) {
  using Place = unsigned long long;     // a sample, in the type of atomicExch
  constexpr Place kBehind = ~Place{0};  // end of a list: -1 in the links, and greater than any sample here
  __shared__ Place head[kLinkSources], joined_before[kTile];
  const int64_t block = blockIdx.x, of_images = images.blocks();
  const LinkArgs args = block < of_images ? images : recordings;
  const int64_t begin = (block < of_images ? block : block - of_images) * kLinkSources;
  for (int i = threadIdx.x; i < kLinkSources; i += kThreads) head[i] = kBehind;

  int64_t source[kEach];
  const auto read_sources = [&](int64_t tile) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t b = tile + k * kThreads + threadIdx.x;
      source[k] = b >= 0 ? args.index[b] : -1;
    }
  };
  int64_t tile = args.B - kTile;  // first sample of the tile; the last tile begins before sample 0
  read_sources(tile);
  for (; tile > -kTile; tile -= kTile) {
    const auto sample = [&](int k) { return tile + k * kThreads + threadIdx.x; };
    int own[kEach];  // the sample's source, relative to `begin`; -1 if another block's
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      require(sample(k) < 0 || (source[k] >= 0 && source[k] < args.sources),
              "static_index or event_index: expected indices of the sources");
      own[k] = source[k] >= begin && source[k] < begin + kLinkSources ? static_cast<int>(source[k] - begin) : -1;
    }
    read_sources(tile - kTile);  // these loads are in flight during the barriers
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if (own[k] >= 0) joined_before[sample(k) - tile] = atomicExch(&head[own[k]], sample(k));
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if (own[k] < 0) continue;
      const Place b = sample(k), end = tile + kTile;
      Place next = kBehind, other = head[own[k]];
      for (; other < end; other = joined_before[other - tile]) {
        if (other > b) next = min(next, other);
        if (other < b) own[k] = -1;  // not the head
      }
      args.samples.next[b] = min(next, other);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if (own[k] >= 0) head[own[k]] = sample(k);
    }
  }
  __syncthreads();
  for (int64_t i = begin + threadIdx.x; i < min(begin + kLinkSources, args.sources); i += kThreads) {
    args.samples.first[i] = head[i - begin];
  }
}

// A thread owns its elements of the gradient and adds its samples in the order of b, without atomics, so that every run
// gives the same bits.
template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) backward_events_kernel(const MixupBackwardArgs args, Samples samples) {
  const int64_t frame = args.C * args.plane;
  Column column;
  if (!locate<kPack>(args.T, args.event_count, frame, &column)) return;
  for (int64_t t = column.begin; t < column.end; t += kAhead) {
    float sum[kAhead][kPack] = {};
    for (int64_t b = samples.of(column.row); b >= 0; b = samples.after(b)) {
      const int64_t switch_step = args.switch_step[b];
      require_step(args, switch_step);
      const T* grad = static_cast<const T*>(args.grad) + (t * args.B + b) * frame + column.at;
      Packed<T, kPack> ahead[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (t + k >= switch_step && t + k < column.end) ahead[k] = fetch<kPack>(grad + k * args.B * frame);
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (t + k >= switch_step && t + k < column.end) add(ahead[k], sum[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (t + k >= column.end) break;
      scale(args.event_scale, sum[k]);
      store_pixels(args.event_kind, sum[k], args.grad_events,
                   ((t + k) * args.event_count + column.row) * frame + column.at);
    }
  }
}

// Gradient of the images. An image goes into C planes of each step before the switch.
template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) backward_static_kernel(const MixupBackwardArgs args, Samples samples) {
  Column column;
  if (!locate<kPack>(1, args.static_count, args.plane, &column)) return;
  const int64_t step = args.B * args.C * args.plane;
  float sum[kPack] = {};
  for (int64_t b = samples.of(column.row); b >= 0; b = samples.after(b)) {
    const int64_t steps = args.switch_step[b];
    require_step(args, steps);
    for (int64_t c = 0; c < args.C; ++c) {
      const T* grad = static_cast<const T*>(args.grad) + (b * args.C + c) * args.plane + column.at;
      for (int64_t t = 0; t < steps; t += kAhead) {
        Packed<T, kPack> ahead[kAhead];
#pragma unroll
        for (int k = 0; k < kAhead; ++k) {
          if (t + k < steps) ahead[k] = fetch<kPack>(grad + (t + k) * step);
        }
#pragma unroll
        for (int k = 0; k < kAhead; ++k) {
          if (t + k < steps) add(ahead[k], sum);
        }
      }
    }
  }
  scale(args.static_scale, sum);
  store_pixels(args.static_kind, sum, args.grad_static, column.row * args.plane + column.at);
}

// Regards images with all channels as one plane, so that frames have C planes and images one.
template <typename Args>
Args in_planes(Args args) {
  args.plane *= args.static_channels;
  args.C /= args.static_channels;
  return args;
}

// Calls f with the largest number of elements of T, at most 16 bytes, that divides a row of `pixels`, so that no access
// is unaligned or straddles two rows.
template <typename T, typename F>
void with_pack(int64_t pixels, std::initializer_list<const void*> pointers, F f) {
  constexpr int kWide = 16 / sizeof(T), kHalf = 4;
  if (!aligned(pointers, 16)) return f(IntTag<1>{});
  if (pixels % kWide == 0) return f(IntTag<kWide>{});
  if (pixels % kHalf == 0) return f(IntTag<kHalf>{});
  f(IntTag<1>{});
}

// Links to one kind of source, and their memory; without sources if nothing needs the links.
struct Links {
  LinkArgs args{};
  Tensor memory;

  Links(const Tensor& like, const void* grad, const int64_t* index, int64_t B, int64_t sources) {
    if (!grad || (!index && sources == B)) return;  // without samples, the index is null too
    memory = new_empty(like, {sources + B}, ScalarType::Long);
    args = {.index = index,
            .B = B,
            .sources = sources,
            .samples = {.first = data<int64_t>(memory), .next = data<int64_t>(memory) + sources}};
  }
};

class Cuda {
 public:
  explicit Cuda(const Tensor& events) : launch_(events), events_(events) {}

  void forward(const MixupForwardArgs& given) const {
    const MixupForwardArgs args = in_planes(given);
    with_float(args.mixed_kind, [&](auto type) {
      using T = typename decltype(type)::type;
      with_pack<T>(args.plane, {args.static_images, args.events, args.mixed}, [&](auto pack) {
        launch_(forward_kernel<T, pack>, items<pack>(args.T, args.B * args.C, args.plane), 0, args);
      });
    });
  }

  void backward(const MixupBackwardArgs& given) const {
    const MixupBackwardArgs args = in_planes(given);
    const Links images(events_, args.grad_static, args.static_index, args.B, args.static_count);
    const Links recordings(events_, args.grad_events, args.event_index, args.B, args.event_count);
    launch_.blocks(link_kernel, images.args.blocks() + recordings.args.blocks(), 0, images.args, recordings.args);
    with_float(args.grad_kind, [&](auto type) {
      using T = typename decltype(type)::type;
      if (args.grad_static) {
        with_pack<T>(args.plane, {args.grad, args.grad_static}, [&](auto pack) {
          launch_(backward_static_kernel<T, pack>, items<pack>(1, args.static_count, args.plane), 0, args,
                  images.args.samples);
        });
      }
      if (args.grad_events) {
        const int64_t frame = args.C * args.plane;
        with_pack<T>(frame, {args.grad, args.grad_events}, [&](auto pack) {
          launch_(backward_events_kernel<T, pack>, items<pack>(args.T, args.event_count, frame), 0, args,
                  recordings.args.samples);
        });
      }
    });
  }

 private:
  CudaLaunch launch_;
  const Tensor& events_;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tmkt, CUDA, m) {
  m.impl("mixup_fwd", TORCH_BOX(&mixup_fwd<Cuda>));
  m.impl("mixup_bwd", TORCH_BOX(&mixup_bwd<Cuda>));
}

}  // namespace tmkt
