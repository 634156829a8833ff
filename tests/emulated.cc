// Runs plans of libraries on the machine that it is compiled for: kernels from a shared object, steps and memory from a
// script; see emulated.py, which writes it. Each script is run in a process of its own.
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime.h"

namespace {

struct Group {
  void* sync;
  int32_t tasks;
};

std::string said;

int parallel(int (*task)(int, void*, void*), void* data, int) {
  Group group{nullptr, 3};
  for (int i = 0; i < group.tasks; ++i)
    if (task(i, &group, data) != 0) return -1;
  return 0;
}

void* workspace(int, int, uint64_t bytes, int, int) {
  void* place = nullptr;
  return posix_memalign(&place, 64, bytes + 64) == 0 ? place : nullptr;
}

int workspace_free(int, int, void* place) { return std::free(place), 0; }

struct Script {
  FILE* file;
  int64_t number() {
    int64_t value = 0;
    if (std::fread(&value, 8, 1, file) != 1) std::exit(9);
    return value;
  }
  std::string text() {
    std::string value(static_cast<size_t>(number()), 0);
    if (!value.empty() && std::fread(&value[0], 1, value.size(), file) != value.size()) std::exit(9);
    return value;
  }
};

// Memory that ends where a page begins that nobody may touch: what writes beyond it ends the process.
char* room(int64_t bytes) {
  int64_t page = 4096, whole = (bytes + page - 1) / page * page + page;
  auto* start = static_cast<char*>(mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(start + whole, page, PROT_NONE);
  std::memset(start, 0xA5, whole);
  return start + (whole - (bytes + 63) / 64 * 64);
}

int run(const char* library, const char* script, const char* output) {
  Script in{std::fopen(script, "rb")};
  void* kernels = *library == '-' ? nullptr : dlopen(library, RTLD_NOW);
  if (in.file == nullptr || (kernels == nullptr && *library != '-')) return std::fprintf(stderr, "%s\n", dlerror()), 8;
  std::vector<char*> rooms(in.number());
  for (auto& one : rooms) {
    int64_t bytes = in.number();
    one = room(bytes);
    std::string data = in.text();
    std::memcpy(one, data.data(), data.size());
  }
  for (int64_t steps = in.number(); steps > 0; --steps) {
    std::string kernel = in.text();
    std::vector<optc::Value> values(in.number());
    std::vector<optc::Tensor> tensors(values.size());
    std::vector<std::vector<int64_t>> shapes(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      int64_t rank = in.number();
      if (rank < 0) {
        values[i] = optc::Value{1, 0, {in.number()}};
        continue;
      }
      shapes[i].resize(rank);
      for (auto& size : shapes[i]) size = in.number();
      char* place = rooms[in.number()];
      place += in.number();
      optc::DType type{static_cast<uint8_t>(in.number()), static_cast<uint8_t>(in.number()), 1};
      tensors[i] = optc::Tensor{place, {1, 0}, static_cast<int32_t>(rank), type, shapes[i].data(), nullptr, 0};
      values[i].type = 7;
      values[i].padding = 0;
      values[i].pointer = &tensors[i];
    }
    if (kernel == "copy") {
      std::memmove(tensors[1].data, tensors[0].data, in.number());
    } else if (kernel == "fill") {
      for (size_t i = 1; i < values.size(); ++i) static_cast<int64_t*>(tensors[0].data)[i - 1] = values[i].number;
    } else if (kernel == "require") {
      if (*static_cast<char*>(tensors[0].data) == 0) return std::fprintf(stderr, "required: %d\n", int(values[1].number)), 7;
    } else {
      auto call = reinterpret_cast<optc::Kernel>(dlsym(kernels, ("__tvm_ffi_" + kernel).c_str()));
      optc::Value result{};
      if (call == nullptr) return std::fprintf(stderr, "no kernel %s\n", kernel.c_str()), 6;
      if (call(nullptr, values.data(), static_cast<int32_t>(values.size()), &result) != 0)
        return std::fprintf(stderr, "%s: %s\n", kernel.c_str(), said.c_str()), 5;
    }
  }
  FILE* out = std::fopen(output, "wb");
  for (int64_t outputs = in.number(); outputs > 0; --outputs) {
    char* place = rooms[in.number()];
    int64_t bytes = in.number();
    if (out == nullptr || std::fwrite(place, 1, bytes, out) != static_cast<size_t>(bytes)) return 4;
  }
  return std::fclose(out);
}

}  // namespace

extern "C" {
int (*__TVMBackendParallelLaunch)(int (*)(int, void*, void*), void*, int) = parallel;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = workspace_free;
void TVMFFIErrorSetRaisedFromCStr(const char*, const char* message) { said = message; }
void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char** parts, int32_t count) {
  for (int32_t i = 0; i < count; ++i) said += parts[i] == nullptr ? "" : parts[i];
}
}

// Takes lines of a library ("-" for none), a script, a file for the outputs and one for messages; prints a status each.
int main() {
  char library[512], script[512], output[512], messages[512];
  while (std::scanf("%511s %511s %511s %511s", library, script, output, messages) == 4) {
    pid_t child = fork();
    if (child == 0) {
      if (std::freopen(messages, "w", stderr) == nullptr) _exit(3);
      int status = run(library, script, output);
      std::fflush(stderr);
      _exit(status);
    }
    int status = 0;
    waitpid(child, &status, 0);
    std::printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    std::fflush(stdout);
  }
  return 0;
}
