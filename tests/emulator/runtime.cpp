// Functions that device code and our library call instead of CUDA's and GCC's run-time libraries.
#include "emulator.h"

#include <cstdint>
#include <string>

namespace emulator {
namespace {

// Arguments that code compiled with GCC's -fsanitize=alignment,null,bounds,integer-divide-by-zero passes to its
// run-time library, which these functions replace.
struct Place {
  const char* file;
  uint32_t line, column;
};
struct Type {
  uint16_t kind, info;
  char name[1];
};
struct Mismatch {
  Place place;
  const Type* type;
  unsigned char log_alignment, kind;
};
struct OutOfBounds {
  Place place;
  const Type *array, *index;
};

[[noreturn]] void fail_at(const Place& place, const std::string& what) {
  fail((std::string(place.file) + ":" + std::to_string(place.line) + ": " + what).c_str());
}

}  // namespace
}  // namespace emulator

extern "C" {

void __ubsan_handle_type_mismatch_v1(emulator::Mismatch* found, uintptr_t pointer) {
  const std::string type = found->type->name;
  if (!pointer) emulator::fail_at(found->place, "illegal memory access: null pointer to " + type);
  const int bytes = 1 << found->log_alignment;
  emulator::fail_at(found->place, "misaligned address: " + type + " needs " + std::to_string(bytes) + " bytes");
}

void __ubsan_handle_out_of_bounds(emulator::OutOfBounds* found, uintptr_t index) {
  emulator::fail_at(found->place, "index " + std::to_string(index) + " is out of bounds of " + found->array->name);
}

void __ubsan_handle_divrem_overflow(const emulator::Place* place, uintptr_t, uintptr_t) {
  emulator::fail_at(*place, "integer division by zero");
}

// A failed assertion in device code (build.py renames glibc's function, which ends the process).
void emulator_assert_fail(const char* assertion, const char* file, unsigned line, const char*) noexcept {
  emulator::fail_at({file, line, 0}, std::string("device-side assert triggered: ") + assertion);
}

// The tests recognise the library by this symbol.
__attribute__((visibility("default"))) extern const char tmkt_emulated = 1;

int aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

}  // extern "C"
