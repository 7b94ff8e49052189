// tmkt_kernels._events. Python checks the arrays and passes them as bytes, because the structured dtype is defined
// there.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "events/decode.h"
#include "events/event.h"
#include "events/frames.h"

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

// Runs `decode(bytes, out)`, one of decode.h, into memory for all events: one per record of `width` bytes, or, where a
// record may hold several events (width 0), as many as a first run without memory counts.
template <class Decode>
Bytes decode(const Bytes& records, int64_t width, Decode run) {
  const tmkt::Bytes bytes{records.data(), records.size()};
  int64_t count = width > 0 ? bytes.size / width : 0;
  if (width == 0) {
    py::gil_scoped_release release;
    count = run(bytes, nullptr);
  }
  constexpr int64_t event_bytes = sizeof(tmkt::Event);
  Bytes raw(count * event_bytes);
  auto* out = reinterpret_cast<tmkt::Event*>(raw.mutable_data());
  int64_t found;
  {
    py::gil_scoped_release release;
    found = run(bytes, out);
  }
  if (found < count) raw.resize({found * event_bytes}, false);
  return raw;
}

Bytes encode(const Bytes& raw) {
  std::vector<uint8_t> records;
  {
    py::gil_scoped_release release;
    records = tmkt::encode_bin(events_of(raw), count_of(raw));
  }
  return to_bytes(records.data(), records.size());
}

// frames: [T, 2, height, width].
void count_frames(const Bytes& raw, int64_t begin, int64_t duration, Array<int16_t>& frames) {
  const tmkt::Bins bins{begin, duration, frames.shape(0)};
  const tmkt::Size sensor{frames.shape(3), frames.shape(2)};
  int16_t* out = frames.mutable_data();
  py::gil_scoped_release release;
  tmkt::count_frames(events_of(raw), count_of(raw), bins, sensor, out);
}

tmkt::AreaShares shares_of(const Array<int32_t>& table) { return {table.data(), table.shape(1) - 1}; }

// columns, rows: tables of tmkt_kernels/ops/camera/area.py, for the sensor's width and height.
void area_frames(const Bytes& raw, int64_t begin, int64_t duration, const Array<int32_t>& columns,
                 const Array<int32_t>& rows, Array<float>& frames) {
  const tmkt::Bins bins{begin, duration, frames.shape(0)};
  const tmkt::Size sensor{columns.shape(0), rows.shape(0)};
  const tmkt::Size target{frames.shape(3), frames.shape(2)};
  float* out = frames.mutable_data();
  py::gil_scoped_release release;
  tmkt::area_frames(events_of(raw), count_of(raw), bins, sensor, target, shares_of(columns), shares_of(rows), out);
}

}  // namespace

PYBIND11_MODULE(_events, m) {
  m.doc() = "Compiled part of tmkt_kernels.events; call that.";
  m.def("decode_bin", [](const Bytes& records) { return decode(records, 5, &tmkt::decode_bin); });
  m.def("decode_dat", [](const Bytes& records) { return decode(records, 8, &tmkt::decode_dat); });
  m.def("decode_evt2", [](const Bytes& records) { return decode(records, 4, &tmkt::decode_evt2); });
  m.def("decode_evt3", [](const Bytes& records) { return decode(records, 0, &tmkt::decode_evt3); });
  m.def("decode_aedat3", [](const Bytes& records) { return decode(records, 0, &tmkt::decode_aedat3); });
  m.def(
      "decode_evt21",
      [](const Bytes& records, bool high_half_first) {
        return decode(records, 0, [&](tmkt::Bytes bytes, tmkt::Event* out) {
          return tmkt::decode_evt21(bytes, high_half_first, out);
        });
      },
      py::arg("records"), py::kw_only(), py::arg("high_half_first"));
  m.def(
      "decode_aedat2",
      [](const Bytes& records, std::pair<int64_t, int64_t> sensor, bool davis) {
        const tmkt::Aedat2Camera camera{sensor.first, sensor.second, davis};
        return decode(records, 8,
                      [&](tmkt::Bytes bytes, tmkt::Event* out) { return tmkt::decode_aedat2(bytes, camera, out); });
      },
      py::arg("records"), py::arg("sensor_size"), py::kw_only(), py::arg("davis"));
  m.def("encode_bin", &encode);
  m.def("count_frames", &count_frames, py::arg("events"), py::arg("begin"), py::arg("duration"),
        py::arg("frames").noconvert());
  m.def("area_frames", &area_frames, py::arg("events"), py::arg("begin"), py::arg("duration"), py::arg("columns"),
        py::arg("rows"), py::arg("frames").noconvert());
}
