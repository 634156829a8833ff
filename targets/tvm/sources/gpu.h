// What the generated part of a model (model.cc) says of the launches that compute it.
#ifndef OPTC_GPU_H
#define OPTC_GPU_H

#include <cstddef>
#include <cstdint>

namespace optc {

// Device memory. `index` counts inputs and outputs; for weights it is where they begin in weights.bin.
enum Kind { kInput, kOutput, kScratch, kWeights };
struct Buffer {
  Kind kind;
  uint64_t bytes;
  uint64_t index;
};

// A kernel on `count` buffers, whose numbers begin at `first` of the arguments; without a name, a copy of `bytes`.
struct Step {
  const char* kernel;
  int first, count;
  size_t global[3], local[3];
  uint64_t bytes;
};

// A run fails, saying `what`, where the first byte of a buffer is zero when all is launched.
struct Required {
  int buffer;
  const char* what;
};

}  // namespace optc

extern const optc::Buffer optc_buffers[];
extern const int optc_buffer_count;
extern const int optc_arguments[];
extern const optc::Step optc_launches[];
extern const optc::Required optc_required[];
extern const int optc_required_count;

#endif
