// Runs the launches of model.cc on an OpenCL device. Nothing is needed but the C library and a driver, which is looked
// for when a model is opened. The files kernels.cl and weights.bin stand beside the program or library that holds this.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "gpu.h"
#include "model.h"

namespace {

thread_local char last_error[4096];

void fail(const char* what, const char* more = "", int code = 0) {
  if (code != 0) {
    std::snprintf(last_error, sizeof last_error, "%s %s (OpenCL error %d)", what, more, code);
  } else {
    std::snprintf(last_error, sizeof last_error, "%s %s", what, more);
  }
}

// The part of OpenCL 1.2 that is used, as its specification declares it.
using Handle = struct Opaque*;
constexpr uint64_t kGpu = 4, kAll = 0xFFFFFFFF, kReadWrite = 1, kProfiling = 2;
constexpr uint32_t kBuildLog = 0x1183, kStart = 0x1282, kEnd = 0x1283, kGroup = 0x1004, kExtensions = 0x1030;

struct Api {
  int (*clGetPlatformIDs)(uint32_t, Handle*, uint32_t*);
  int (*clGetDeviceIDs)(Handle, uint64_t, uint32_t, Handle*, uint32_t*);
  int (*clGetDeviceInfo)(Handle, uint32_t, size_t, void*, size_t*);
  Handle (*clCreateContext)(const intptr_t*, uint32_t, const Handle*, void*, void*, int*);
  Handle (*clCreateCommandQueue)(Handle, Handle, uint64_t, int*);
  Handle (*clCreateBuffer)(Handle, uint64_t, size_t, void*, int*);
  Handle (*clCreateProgramWithSource)(Handle, uint32_t, const char**, const size_t*, int*);
  int (*clBuildProgram)(Handle, uint32_t, const Handle*, const char*, void*, void*);
  int (*clGetProgramBuildInfo)(Handle, Handle, uint32_t, size_t, void*, size_t*);
  Handle (*clCreateKernel)(Handle, const char*, int*);
  int (*clSetKernelArg)(Handle, uint32_t, size_t, const void*);
  int (*clEnqueueNDRangeKernel)(Handle, Handle, uint32_t, const size_t*, const size_t*, const size_t*, uint32_t,
                                const Handle*, Handle*);
  int (*clEnqueueWriteBuffer)(Handle, Handle, uint32_t, size_t, size_t, const void*, uint32_t, const Handle*, Handle*);
  int (*clEnqueueReadBuffer)(Handle, Handle, uint32_t, size_t, size_t, void*, uint32_t, const Handle*, Handle*);
  int (*clEnqueueCopyBuffer)(Handle, Handle, Handle, size_t, size_t, size_t, uint32_t, const Handle*, Handle*);
  int (*clFinish)(Handle);
  int (*clGetEventProfilingInfo)(Handle, uint32_t, size_t, void*, size_t*);
  int (*clReleaseEvent)(Handle);
  int (*clReleaseMemObject)(Handle);
  int (*clReleaseKernel)(Handle);
  int (*clReleaseProgram)(Handle);
  int (*clReleaseCommandQueue)(Handle);
  int (*clReleaseContext)(Handle);
};

Api cl;

// Where drivers are, those of Android with the folders that its linker does not search. OPTC_OPENCL names another.
#if UINTPTR_MAX > 0xFFFFFFFF
#define OPTC_FOLDERS(file) file, "/vendor/lib64/" file, "/system/vendor/lib64/" file, "/system/lib64/" file
#else
#define OPTC_FOLDERS(file) file, "/vendor/lib/" file, "/system/vendor/lib/" file, "/system/lib/" file
#endif

void* open_driver() {
  if (const char* named = std::getenv("OPTC_OPENCL")) {
    void* library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail("no OpenCL driver can be opened where OPTC_OPENCL says:", named);
    return library;
  }
  const char* const names[] = {"libOpenCL.so.1", OPTC_FOLDERS("libOpenCL.so"), OPTC_FOLDERS("egl/libGLES_mali.so"),
                               OPTC_FOLDERS("libGLES_mali.so"), OPTC_FOLDERS("libPVROCL.so")};
  for (const char* name : names)
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  fail("no OpenCL driver: none of libOpenCL.so, libGLES_mali.so and libPVROCL.so is here; install the device's, or name",
       "its file in the environment variable OPTC_OPENCL");
  return nullptr;
}

bool load() {
  static bool loaded = false;
  if (loaded) return true;
  void* library = open_driver();
  if (library == nullptr) return false;
#define OPTC_FIND(name)                                              \
  *reinterpret_cast<void**>(&cl.name) = dlsym(library, #name);       \
  if (cl.name == nullptr) return fail("the OpenCL driver has no", #name), false;
  OPTC_FIND(clGetPlatformIDs)
  OPTC_FIND(clGetDeviceIDs)
  OPTC_FIND(clGetDeviceInfo)
  OPTC_FIND(clCreateContext)
  OPTC_FIND(clCreateCommandQueue)
  OPTC_FIND(clCreateBuffer)
  OPTC_FIND(clCreateProgramWithSource)
  OPTC_FIND(clBuildProgram)
  OPTC_FIND(clGetProgramBuildInfo)
  OPTC_FIND(clCreateKernel)
  OPTC_FIND(clSetKernelArg)
  OPTC_FIND(clEnqueueNDRangeKernel)
  OPTC_FIND(clEnqueueWriteBuffer)
  OPTC_FIND(clEnqueueReadBuffer)
  OPTC_FIND(clEnqueueCopyBuffer)
  OPTC_FIND(clFinish)
  OPTC_FIND(clGetEventProfilingInfo)
  OPTC_FIND(clReleaseEvent)
  OPTC_FIND(clReleaseMemObject)
  OPTC_FIND(clReleaseKernel)
  OPTC_FIND(clReleaseProgram)
  OPTC_FIND(clReleaseCommandQueue)
  OPTC_FIND(clReleaseContext)
#undef OPTC_FIND
  return loaded = true;
}

// A GPU where there is one, else any device.
bool find_device(Handle& device) {
  Handle platforms[16];
  uint32_t count = 0;
  if (cl.clGetPlatformIDs(16, platforms, &count) != 0) count = 0;
  const uint64_t kinds[] = {kGpu, kAll};
  for (uint64_t kind : kinds)
    for (uint32_t i = 0; i < count && i < 16; ++i) {
      uint32_t found = 0;
      if (cl.clGetDeviceIDs(platforms[i], kind, 1, &device, &found) == 0 && found > 0) return true;
    }
  return fail("no OpenCL device"), false;
}

// The bytes of a file beside this program or library, or nullptr.
char* read(const char* name, size_t& size) {
  Dl_info self;
  char path[4096];
  const char* from = dladdr(reinterpret_cast<void*>(&optc_open), &self) != 0 ? self.dli_fname : "";
  const char* end = std::strrchr(from, '/');
  int folder = end == nullptr ? 0 : static_cast<int>(end - from) + 1;
  std::snprintf(path, sizeof path, "%.*s%s", folder, from, name);
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return fail("cannot read", path), nullptr;
  std::fseek(file, 0, SEEK_END);
  size = static_cast<size_t>(std::ftell(file));
  std::rewind(file);
  char* data = static_cast<char*>(std::malloc(size + 1));
  if (data != nullptr && std::fread(data, 1, size, file) != size) {
    std::free(data);
    data = nullptr;
  }
  std::fclose(file);
  if (data == nullptr) return fail("cannot read", path), nullptr;
  data[size] = 0;
  return data;
}

int64_t bytes_of(const optc_tensor& port) {
  int64_t bytes = std::atoi(port.dtype + 2);
  for (int i = 0; i < port.rank; ++i) bytes *= port.dims[i];
  return bytes;
}

}  // namespace

struct optc_model {
  Handle device = nullptr, context = nullptr, queue = nullptr, program = nullptr;
  Handle* buffers = nullptr;
  Handle* kernels = nullptr;
  double* seconds = nullptr;

  ~optc_model() {
    for (int i = 0; kernels != nullptr && i < optc_step_count; ++i)
      if (kernels[i] != nullptr) cl.clReleaseKernel(kernels[i]);
    for (int i = 0; buffers != nullptr && i < optc_buffer_count; ++i)
      if (buffers[i] != nullptr) cl.clReleaseMemObject(buffers[i]);
    if (program != nullptr) cl.clReleaseProgram(program);
    if (queue != nullptr) cl.clReleaseCommandQueue(queue);
    if (context != nullptr) cl.clReleaseContext(context);
    std::free(kernels);
    std::free(buffers);
  }

  bool open() {
    int code = 0;
    if (!load() || !find_device(device)) return false;
    context = cl.clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
    if (code == 0) queue = cl.clCreateCommandQueue(context, device, kProfiling, &code);
    if (code != 0) return fail("cannot use the device", "", code), false;
    return fill() && build() && bind();
  }

  bool fill() {
    size_t size = 0;
    char* weights = read("weights.bin", size);
    if (weights == nullptr) return false;
    buffers = static_cast<Handle*>(std::calloc(static_cast<size_t>(optc_buffer_count) + 1, sizeof(Handle)));
    int code = buffers == nullptr ? -6 : 0;
    for (int i = 0; i < optc_buffer_count && code == 0; ++i) {
      const optc::Buffer& one = optc_buffers[i];
      buffers[i] = cl.clCreateBuffer(context, kReadWrite, one.bytes, nullptr, &code);
      if (code != 0 || one.kind != optc::kWeights) continue;
      if (one.index + one.bytes > size) code = -30;
      if (code == 0)
        code = cl.clEnqueueWriteBuffer(queue, buffers[i], 1, 0, one.bytes, weights + one.index, 0, nullptr, nullptr);
    }
    std::free(weights);
    if (code != 0) fail("cannot place the weights", "", code);
    return code == 0;
  }

  bool build() {
    size_t size = 0;
    char* text = read("kernels.cl", size);
    if (text == nullptr) return false;
    if (!suits(text)) return std::free(text), false;
    const char* whole = text;
    int code = 0;
    program = cl.clCreateProgramWithSource(context, 1, &whole, &size, &code);
    if (code == 0) code = cl.clBuildProgram(program, 1, &device, "-cl-std=CL1.2 -cl-mad-enable", nullptr, nullptr);
    std::free(text);
    if (code == 0) return true;
    char log[3000] = "";
    if (program != nullptr) cl.clGetProgramBuildInfo(program, device, kBuildLog, sizeof log - 1, log, nullptr);
    return fail("the driver does not compile the kernels:", log, code), false;
  }

  // Whether the device has what the kernels take.
  bool suits(const char* text) {
    char extensions[8192] = "";
    size_t most = 0;
    if (std::strstr(text, "cl_khr_fp64") != nullptr &&
        (cl.clGetDeviceInfo(device, kExtensions, sizeof extensions - 1, extensions, nullptr) != 0 ||
         std::strstr(extensions, "cl_khr_fp64") == nullptr))
      return fail("the model computes with doubles, which this OpenCL device lacks: build it from float32"), false;
    if (cl.clGetDeviceInfo(device, kGroup, sizeof most, &most, nullptr) != 0) return true;
    for (int i = 0; i < optc_step_count; ++i) {
      const size_t* local = optc_launches[i].local;
      if (local[0] * local[1] * local[2] > most)
        return fail("this OpenCL device runs fewer threads together than is needed by", optc_launches[i].kernel), false;
    }
    return true;
  }

  bool bind() {
    kernels = static_cast<Handle*>(std::calloc(static_cast<size_t>(optc_step_count) + 1, sizeof(Handle)));
    if (kernels == nullptr) return fail("out of memory"), false;
    for (int i = 0; i < optc_step_count; ++i) {
      const optc::Step& step = optc_launches[i];
      if (step.kernel == nullptr) continue;
      int code = 0;
      kernels[i] = cl.clCreateKernel(program, step.kernel, &code);
      for (int k = 0; k < step.count && code == 0; ++k)
        code = cl.clSetKernelArg(kernels[i], static_cast<uint32_t>(k), sizeof(Handle), &at(step, k));
      if (code != 0) return fail("cannot bind kernel", step.kernel, code), false;
    }
    return true;
  }

  Handle& at(const optc::Step& step, int argument) { return buffers[optc_arguments[step.first + argument]]; }

  bool run(const void* const* inputs, void* const* outputs) {
    for (int i = 0; i < optc_buffer_count; ++i) {
      const optc::Buffer& one = optc_buffers[i];
      if (one.kind != optc::kInput) continue;
      const int64_t bytes = bytes_of(optc_inputs[one.index]);
      if (bytes == 0) continue;
      int code = cl.clEnqueueWriteBuffer(queue, buffers[i], 1, 0, static_cast<size_t>(bytes), inputs[one.index], 0,
                                         nullptr, nullptr);
      if (code != 0) return fail("cannot write an input", "", code), false;
    }
    for (int i = 0; i < optc_step_count; ++i)
      if (!launch(i)) return false;
    for (int i = 0; i < optc_required_count; ++i) {
      char truth = 0;
      int code = cl.clEnqueueReadBuffer(queue, buffers[optc_required[i].buffer], 1, 0, 1, &truth, 0, nullptr, nullptr);
      if (code != 0) return fail("the device failed", "", code), false;
      if (truth == 0) return fail(optc_required[i].what), false;
    }
    for (int i = 0; i < optc_buffer_count; ++i) {
      const optc::Buffer& one = optc_buffers[i];
      if (one.kind != optc::kOutput) continue;
      const int64_t bytes = bytes_of(optc_outputs[one.index]);
      if (bytes == 0) continue;
      int code = cl.clEnqueueReadBuffer(queue, buffers[i], 1, 0, static_cast<size_t>(bytes), outputs[one.index], 0,
                                        nullptr, nullptr);
      if (code != 0) return fail("cannot read an output", "", code), false;
    }
    int code = cl.clFinish(queue);
    if (code != 0) fail("the device failed", "", code);
    return code == 0;
  }

  bool launch(int index) {
    const optc::Step& step = optc_launches[index];
    Handle event = nullptr;
    Handle* wanted = seconds == nullptr ? nullptr : &event;
    int code = step.kernel == nullptr
                   ? cl.clEnqueueCopyBuffer(queue, at(step, 0), at(step, 1), 0, 0, step.bytes, 0, nullptr, wanted)
                   : cl.clEnqueueNDRangeKernel(queue, kernels[index], 3, nullptr, step.global, step.local, 0, nullptr,
                                               wanted);
    if (code != 0) return fail("cannot launch", step.kernel == nullptr ? "a copy" : step.kernel, code), false;
    if (wanted == nullptr) return true;
    uint64_t start = 0, end = 0;
    cl.clFinish(queue);
    if (cl.clGetEventProfilingInfo(event, kStart, sizeof start, &start, nullptr) == 0 &&
        cl.clGetEventProfilingInfo(event, kEnd, sizeof end, &end, nullptr) == 0)
      seconds[index] += 1e-9 * static_cast<double>(end - start);
    cl.clReleaseEvent(event);
    return true;
  }
};

extern "C" {

optc_model* optc_open(int) {
  void* place = std::malloc(sizeof(optc_model));
  if (place == nullptr) return fail("out of memory"), nullptr;
  auto* model = ::new (place) optc_model;
  if (model->open()) return model;
  optc_close(model);
  return nullptr;
}

void optc_close(optc_model* model) {
  model->~optc_model();
  std::free(model);
}

int optc_shapes(optc_model*, const int64_t* const* input_dims, int64_t* const* output_dims) {
  for (int i = 0; i < optc_input_count; ++i)
    for (int axis = 0; axis < optc_inputs[i].rank; ++axis)
      if (input_dims[i][axis] != optc_inputs[i].dims[axis])
        return fail("the model takes another size of input", optc_inputs[i].name), -1;
  for (int i = 0; i < optc_output_count; ++i)
    for (int axis = 0; axis < optc_outputs[i].rank; ++axis) output_dims[i][axis] = optc_outputs[i].dims[axis];
  return 0;
}

int optc_run(optc_model* model, const void* const* inputs, const int64_t* const*, void* const* outputs) {
  return model->run(inputs, outputs) ? 0 : -1;
}

void optc_time(optc_model* model, double* seconds) { model->seconds = seconds; }

const char* optc_error(void) { return last_error; }

}  // extern "C"
