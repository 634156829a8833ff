// What the generated part of a model (model.cc) is written against.
#ifndef OPTC_RUNTIME_H
#define OPTC_RUNTIME_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "model.h"

namespace optc {

// A tensor as the kernels take it: the layout of DLPack's DLTensor.
struct Device {
  int32_t type, id;
};
struct DType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t rank;
  DType dtype;
  const int64_t* shape;
  const int64_t* strides;
  uint64_t byte_offset;
};
// An argument of a kernel: the layout of TVMFFIAny.
struct Value {
  int32_t type;
  uint32_t padding;
  union {
    int64_t number;
    void* pointer;
  };
};
using Kernel = int (*)(void*, Value*, int32_t, Value*);

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
inline int64_t floor_mod(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }
inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline Tensor tensor(const void* data, DType dtype, int32_t rank, const int64_t* shape) {
  return Tensor{const_cast<void*>(data), {1, 0}, rank, dtype, shape, nullptr, 0};
}

inline Value pointer(Tensor* tensor) {
  Value value{7, 0, {0}};
  value.pointer = tensor;
  return value;
}

inline Value number(int64_t n) { return Value{1, 0, {n}}; }

// Memory that grows as needed and stays; its start is aligned for the kernels.
class Arena {
 public:
  ~Arena();
  char* reserve(int64_t bytes);

 private:
  char* held_ = nullptr;
  int64_t size_ = 0;
};

struct Model;
void fail(const char* what);
bool call(Model& model, int step, Kernel kernel, Value* values, int count);
char* arena(Model& model, int64_t bytes);
// A caller's memory as it is where it is aligned, else a copy of it (`bytes` of an input) or a place to write.
char* staged(Model& model, int index, const void* data, int64_t bytes, bool fill);

}  // namespace optc

// Generated: the plan of this model.
namespace optc_plan {
bool shapes(const int64_t* const* dims, int64_t* const* out);
bool run(optc::Model& model, const void* const* inputs, const int64_t* const* dims, void* const* outputs);
}  // namespace optc_plan

#endif
