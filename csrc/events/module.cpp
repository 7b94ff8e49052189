// tmkt_kernels._events: arrays come checked from events.py and go as bytes, since the structured dtype lives there.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "events/decode.h"
#include "events/event.h"
#include "events/frames.h"
#include "events/simulator.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Bytes = Array<uint8_t>;

const tmkt::Event* events_of(const Bytes& raw) { return reinterpret_cast<const tmkt::Event*>(raw.data()); }
int64_t count_of(const Bytes& raw) { return raw.size() / static_cast<int64_t>(sizeof(tmkt::Event)); }

Bytes to_bytes(const void* data, size_t size) {
  Bytes raw(static_cast<py::ssize_t>(size));
  if (size > 0) std::memcpy(raw.mutable_data(), data, size);
  return raw;
}

Bytes decode(const Bytes& records) {
  const int64_t n_records = records.size() / tmkt::kRecordBytes;
  const int64_t n_events = tmkt::count_events(records.data(), n_records);
  Bytes raw(n_events * static_cast<int64_t>(sizeof(tmkt::Event)));
  const uint8_t* in = records.data();
  auto* out = reinterpret_cast<tmkt::Event*>(raw.mutable_data());
  py::gil_scoped_release release;
  tmkt::decode(in, n_records, out);
  return raw;
}

Bytes encode(const Bytes& raw) {
  std::vector<uint8_t> records;
  {
    py::gil_scoped_release release;
    records = tmkt::encode(events_of(raw), count_of(raw));
  }
  return to_bytes(records.data(), records.size());
}

void count_frames(const Bytes& raw, std::pair<int64_t, int64_t> sensor, Array<int16_t>& frames) {
  const int64_t T = frames.shape(0);
  int16_t* out = frames.mutable_data();
  py::gil_scoped_release release;
  tmkt::count_frames(events_of(raw), count_of(raw), T, {sensor.first, sensor.second}, out);
}

void area_frames(const Bytes& raw, std::pair<int64_t, int64_t> sensor, Array<float>& frames) {
  const int64_t T = frames.shape(0);
  const tmkt::Size target{frames.shape(3), frames.shape(2)};
  float* out = frames.mutable_data();
  py::gil_scoped_release release;
  tmkt::area_frames(events_of(raw), count_of(raw), T, {sensor.first, sensor.second}, target, out);
}

Bytes simulate_saccades(const Array<double>& image, std::pair<int64_t, int64_t> sensor, tmkt::SaccadeParams params) {
  const double* pixels = image.data();
  const tmkt::Size size{image.shape(1), image.shape(0)};
  std::vector<tmkt::Event> events;
  {
    py::gil_scoped_release release;
    events = tmkt::simulate_saccades(pixels, size, {sensor.first, sensor.second}, params);
  }
  return to_bytes(events.data(), events.size() * sizeof(tmkt::Event));
}

}  // namespace

PYBIND11_MODULE(_events, m) {
  m.doc() = "Compiled part of tmkt_kernels.events; call that.";
  m.def("decode", &decode);
  m.def("encode", &encode);
  m.def("count_frames", &count_frames, py::arg("events"), py::arg("sensor_size"), py::arg("frames").noconvert());
  m.def("area_frames", &area_frames, py::arg("events"), py::arg("sensor_size"), py::arg("frames").noconvert());
  m.def(
      "simulate_saccades",
      [](const Array<double>& image, std::pair<int64_t, int64_t> sensor, std::vector<std::pair<double, double>> path,
         double saccade_us, double fixation_us, double scale, double dark, double threshold, double mismatch,
         double latency_us, double refractory_us, double noise_rate, uint64_t seed) {
        return simulate_saccades(image, sensor,
                                 {std::move(path), saccade_us, fixation_us, scale, dark, threshold, mismatch,
                                  latency_us, refractory_us, noise_rate, seed});
      },
      py::arg("image"), py::arg("sensor_size"), py::kw_only(), py::arg("path"), py::arg("saccade_us"),
      py::arg("fixation_us"), py::arg("scale"), py::arg("dark"), py::arg("threshold"), py::arg("mismatch"),
      py::arg("latency_us"), py::arg("refractory_us"), py::arg("noise_rate"), py::arg("seed"));
}
