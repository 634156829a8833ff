// What the generated part of a model (model.cc) is written against.
#ifndef OPTC_RUNTIME_H
#define OPTC_RUNTIME_H

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
// As std::min and std::max of a list, whose header is most of what a plan takes to compile.
template <size_t count>
int64_t smallest(const int64_t (&list)[count]) {
  int64_t least = list[0];
  for (int64_t one : list) least = one < least ? one : least;
  return least;
}
template <size_t count>
int64_t largest(const int64_t (&list)[count]) {
  int64_t most = list[0];
  for (int64_t one : list) most = one > most ? one : most;
  return most;
}

// Memory that grows as needed and stays; its start is aligned for the kernels.
class Arena {
 public:
  ~Arena();
  char* reserve(int64_t bytes);
  char* held() const { return held_; }

 private:
  char* held_ = nullptr;
  int64_t size_ = 0;
};

struct Model;
void fail(const char* what);
// What a model does, step by step. Each step takes the next `count` operands.
enum : uint16_t { kCopy = 0xffff, kFill = 0xfffe, kRequire = 0xfffd };
enum : uint8_t { kArena, kInput, kOutput, kWeights, kTables, kNumber };
struct Step {
  uint16_t kernel, count;
};
// `at` counts slots, inputs, outputs, or 64 bytes; of a number it is its place among the sizes.
struct Operand {
  uint32_t at;
  uint16_t shape;
  uint8_t space, type;
};
struct Plan {
  const Step* steps;
  int count;
  const Operand* operands;
  // Each shape is its rank and, as places among the sizes, its extents.
  const uint16_t* shapes;
  const DType* types;
  const int32_t* kernels;
  // What went wrong where something required is not so.
  const char* const* texts;
};
// What is known only when it runs: sizes, where slots, inputs and outputs are, and room for the operands of one step.
struct Frame {
  const int64_t* sizes;
  char* const* places[3];
  Tensor* tensors;
  Value* values;
  int64_t* extents;
};
bool execute(Model& model, const Plan& plan, const Frame& frame);
// Constants of few kinds: one byte each, and a table of the words that these stand for; see `constants.py`.
struct Table {
  uint64_t codes, words, count, at;
};
// Puts `size` bytes of weights where they are read fastest, and spreads out the tables that are among them.
bool fill(Model& model, const char* weights, int64_t size, const Table* tables, int count, int64_t bytes);
char* arena(Model& model, int64_t bytes);
// A caller's memory as it is where it is aligned, else a copy of it (`bytes` of an input) or a place to write.
char* staged(Model& model, int index, const void* data, int64_t bytes, bool fill);

}  // namespace optc

// Generated: the plan of this model.
namespace optc_plan {
bool shapes_of(const int64_t* const* dims, int64_t* const* out);
// Once, when a model is opened.
bool spread(optc::Model& model);
bool run(optc::Model& model, const void* const* inputs, const int64_t* const* dims, void* const* outputs);
}  // namespace optc_plan

#endif
