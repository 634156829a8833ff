// A compiled model as functions that an RPC server of TVM calls; tensors are DLPack's, on the device itself.
#include "runtime.h"

#include <time.h>

namespace {

constexpr int kMost = 64;

const int64_t kNoDims[] = {0};
optc_model* held = nullptr;
int64_t held_threads = -1;

double now() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return static_cast<double>(at.tv_sec) + 1e-9 * static_cast<double>(at.tv_nsec);
}

const optc::Tensor* tensor(const optc::Value& value) { return static_cast<const optc::Tensor*>(value.pointer); }

void* data(const optc::Value& value) { return static_cast<char*>(tensor(value)->data) + tensor(value)->byte_offset; }

const int64_t* dims(const optc::Value& value) { return tensor(value)->rank ? tensor(value)->shape : kNoDims; }

int real(optc::Value* result, double number) {
  result->type = 3;
  result->padding = 0;
  std::memcpy(&result->number, &number, sizeof number);
  return 0;
}

bool fits(int32_t count, int fixed) {
  if (optc_input_count + optc_output_count <= kMost && count == fixed + optc_input_count + optc_output_count) return true;
  optc::fail("another number of tensors than the model takes");
  return false;
}

}  // namespace

extern "C" {

// (threads, runs, inputs..., outputs...) -> seconds of the fastest run, or -1 (see optc_message).
int __tvm_ffi_optc_run(void*, optc::Value* values, int32_t count, optc::Value* result) {
  if (!fits(count, 2)) return real(result, -1);
  if (held_threads != values[0].number) {
    if (held != nullptr) optc_close(held);
    held = optc_open(static_cast<int>(values[0].number));
    held_threads = held == nullptr ? -1 : values[0].number;
  }
  if (held == nullptr) return optc::fail("out of memory"), real(result, -1);
  const void* from[kMost];
  const int64_t* sizes[kMost];
  void* to[kMost];
  for (int i = 0; i < optc_input_count; ++i) {
    from[i] = data(values[2 + i]);
    sizes[i] = dims(values[2 + i]);
  }
  for (int i = 0; i < optc_output_count; ++i) to[i] = data(values[2 + optc_input_count + i]);
  double best = -1;
  for (int64_t i = 0; i < values[1].number; ++i) {
    double start = now();
    if (optc_run(held, from, sizes, to) != 0) return real(result, -1);
    double taken = now() - start;
    if (best < 0 || taken < best) best = taken;
  }
  return real(result, best);
}

// (inputs..., int64 tensors that receive the sizes of each output) -> 0, or -1 (see optc_message).
int __tvm_ffi_optc_shapes(void*, optc::Value* values, int32_t count, optc::Value* result) {
  if (!fits(count, 0)) return real(result, -1);
  const int64_t* sizes[kMost];
  int64_t* to[kMost];
  for (int i = 0; i < optc_input_count; ++i) sizes[i] = dims(values[i]);
  for (int i = 0; i < optc_output_count; ++i) to[i] = static_cast<int64_t*>(data(values[optc_input_count + i]));
  return real(result, optc_shapes(nullptr, sizes, to));
}

// (tensor of 512 bytes that receives what went wrong last) -> 0.
int __tvm_ffi_optc_message(void*, optc::Value* values, int32_t, optc::Value* result) {
  char* to = static_cast<char*>(data(values[0]));
  std::strncpy(to, optc_error(), 511);
  to[511] = 0;
  return real(result, 0);
}

}  // extern "C"
