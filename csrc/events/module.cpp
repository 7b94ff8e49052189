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

template <class Simulate>
Bytes simulate(Simulate run) {
  std::vector<tmkt::Event> events;
  {
    py::gil_scoped_release release;
    events = run();
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
  py::class_<tmkt::SensorParams>(m, "SensorParams")
      .def(py::init([](double dark, double threshold, double mismatch, double latency_us, double refractory_us,
                       double noise_rate, uint64_t seed) {
             return tmkt::SensorParams{dark, threshold, mismatch, latency_us, refractory_us, noise_rate, seed};
           }),
           py::kw_only(), py::arg("dark"), py::arg("threshold"), py::arg("mismatch"), py::arg("latency_us"),
           py::arg("refractory_us"), py::arg("noise_rate"), py::arg("seed"));
  m.def(
      "simulate_motion",
      [](const Array<double>& image, std::pair<int64_t, int64_t> sensor, const tmkt::SensorParams& params,
         std::vector<std::pair<double, double>> path, double leg_us, double rest_us, double scale, bool smooth) {
        const tmkt::Motion motion{std::move(path), leg_us, rest_us, scale, smooth};
        const tmkt::Size size{image.shape(1), image.shape(0)};
        const double* pixels = image.data();
        return simulate(
            [&] { return tmkt::simulate_motion(pixels, size, {sensor.first, sensor.second}, motion, params); });
      },
      py::arg("image"), py::arg("sensor_size"), py::arg("params"), py::kw_only(), py::arg("path"), py::arg("leg_us"),
      py::arg("rest_us"), py::arg("scale"), py::arg("smooth"));
  m.def(
      "simulate_video",
      [](const Array<double>& frames, const std::vector<double>& times_us, const tmkt::SensorParams& params) {
        const tmkt::Size sensor{frames.shape(2), frames.shape(1)};
        const double* pixels = frames.data();
        return simulate([&] { return tmkt::simulate_video(pixels, times_us, sensor, params); });
      },
      py::arg("frames"), py::arg("times_us"), py::arg("params"));
}
