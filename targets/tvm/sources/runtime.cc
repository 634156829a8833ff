// Threads, memory and errors of a compiled model: all that its kernels call.
#include "runtime.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

// Only the C library is used, so that a model runs where nothing else is installed.
namespace optc {
namespace {

#ifdef OPTC_BIONIC
// Android's number, where it is built with the headers of glibc.
constexpr int kCores = 97;
#else
constexpr int kCores = _SC_NPROCESSORS_ONLN;
#endif

// Room for what any C library keeps in one of its objects: the one that is compiled with need not be the one it runs on.
template <typename T>
union Roomy {
  T one;
  char room[64];
};

thread_local char last_error[512];

using Task = int (*)(int, void*, void*);
struct Group {
  void* sync;
  int32_t tasks;
};

constexpr int kMostThreads = 64;
constexpr int kSpins = 20000, kParts = 2;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

void release();

// Threads that wait for work; the caller's own is the first of them.
class Pool {
 public:
  explicit Pool(int threads) {
    pthread_mutex_init(&mutex_.one, nullptr);
    pthread_cond_init(&wake_.one, nullptr);
    int size = 1;
    while (size < threads && size < kMostThreads && pthread_create(&threads_[size], nullptr, work, this) == 0) ++size;
    size_ = size;
  }
  ~Pool() {
    stop_ = true;
    next_round();
    for (int i = 1; i < size_; ++i) pthread_join(threads_[i], nullptr);
    pthread_cond_destroy(&wake_.one);
    pthread_mutex_destroy(&mutex_.one);
  }

  int run(Task task, void* data) {
    // More parts than threads: where one is late, the others do its share.
    const int parts = size_ == 1 ? 1 : kParts * size_;
    group_ = Group{nullptr, parts};
    if (size_ == 1) return task(0, &group_, data);
    task_ = task;
    data_ = data;
    failed_ = 0;
    done_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_release);
    next_round();
    take();
    for (int i = 0; done_.load(std::memory_order_acquire) != parts; ++i) i < kSpins ? pause() : (void)sched_yield();
    return failed_ ? -1 : 0;
  }

 private:
  void next_round() {
    pthread_mutex_lock(&mutex_.one);
    round_.fetch_add(1, std::memory_order_release);
    pthread_cond_broadcast(&wake_.one);
    pthread_mutex_unlock(&mutex_.one);
  }

  void take() {
    // A thread that comes late finds no part left, or one of the next round, whose task is in place by then.
    for (int i; (i = next_.fetch_add(1, std::memory_order_acq_rel)) < kParts * size_;) {
      if (task_(i, &group_, data_) != 0) failed_ = 1;
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  static void* work(void* self) {
    Pool& pool = *static_cast<Pool*>(self);
    for (unsigned seen = 0;;) {
      for (int i = 0; i < kSpins && pool.round_.load(std::memory_order_acquire) == seen; ++i) pause();
      if (pool.round_.load(std::memory_order_acquire) == seen) {
        pthread_mutex_lock(&pool.mutex_.one);
        while (pool.round_.load(std::memory_order_acquire) == seen) pthread_cond_wait(&pool.wake_.one, &pool.mutex_.one);
        pthread_mutex_unlock(&pool.mutex_.one);
      }
      seen = pool.round_.load(std::memory_order_acquire);
      if (pool.stop_) return release(), nullptr;
      pool.take();
    }
  }

  std::atomic<int> size_{1};
  pthread_t threads_[kMostThreads];
  Roomy<pthread_mutex_t> mutex_;
  Roomy<pthread_cond_t> wake_;
  std::atomic<unsigned> round_{0};
  std::atomic<int> next_{1 << 20}, done_{0}, failed_{0};
  std::atomic<bool> stop_{false};
  Group group_{};
  Task task_ = nullptr;
  void* data_ = nullptr;
};

thread_local Pool* current = nullptr;

#if defined(__x86_64__) && defined(MADV_HUGEPAGE)
// The large pages of Linux. Thousands of small ones are more than a CPU knows the places of, so what is larger than one of
// these is put in them where the system has any, and so is what fills half of the last.
constexpr uint64_t kPage = 2 << 20, kLarge = kPage / 2;

void large(void* at, uint64_t bytes) { madvise(at, bytes, MADV_HUGEPAGE); }
// Of a file that is mapped, what was copied can be read again.
void give_back(const char* at, uint64_t bytes) {
  const uintptr_t page = sysconf(_SC_PAGESIZE), start = reinterpret_cast<uintptr_t>(at);
  const uintptr_t first = (start + page - 1) / page * page, last = (start + bytes) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}
#else
constexpr uint64_t kPage = 64, kLarge = UINT64_MAX;
void large(void*, uint64_t) {}
void give_back(const char*, uint64_t) {}
#endif

void* allocate(uint64_t bytes) {
  void* found = nullptr;
  if (bytes % kPage >= kLarge) bytes += kPage - bytes % kPage;
  if (posix_memalign(&found, bytes < kLarge ? 64 : kPage, bytes ? bytes : 64) != 0) return nullptr;
  if (bytes >= kLarge) large(found, bytes);
  return found;
}

double now() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return static_cast<double>(at.tv_sec) + 1e-9 * static_cast<double>(at.tv_nsec);
}

// Working memory of kernels, a list for each thread: blocks that were given back are taken again.
struct Block {
  Block* next;
  uint64_t size;
  bool used;
};
constexpr uint64_t kHead = 64;
thread_local Block* blocks = nullptr;

void release() {
  while (blocks != nullptr) {
    Block* next = blocks->next;
    std::free(blocks);
    blocks = next;
  }
}

}  // namespace

Arena::~Arena() { std::free(held_); }

char* Arena::reserve(int64_t bytes) {
  if (bytes > size_ || held_ == nullptr) {
    std::free(held_);
    held_ = static_cast<char*>(allocate(static_cast<uint64_t>(bytes)));
    size_ = held_ ? bytes : 0;
  }
  return held_;
}

struct Model {
  explicit Model(int threads)
      : pool(threads), stages(static_cast<Arena*>(std::calloc(optc_input_count + optc_output_count, sizeof(Arena)))) {}
  ~Model() {
    for (int i = 0; stages != nullptr && i < optc_input_count + optc_output_count; ++i) stages[i].~Arena();
    std::free(stages);
  }
  Pool pool;
  Arena memory, spread, copied;
  const char* weights = nullptr;
  // One for each input and output; an arena of zero bytes is an empty one.
  Arena* stages;
  double* seconds = nullptr;
};

void fail(const char* what) { std::snprintf(last_error, sizeof last_error, "%s", what); }

char* arena(Model& model, int64_t bytes) {
  char* found = model.memory.reserve(bytes);
  if (found == nullptr) fail("out of memory");
  return found;
}

char* staged(Model& model, int index, const void* data, int64_t bytes, bool fill) {
  if (reinterpret_cast<uintptr_t>(data) % 64 == 0) return static_cast<char*>(const_cast<void*>(data));
  char* found = model.stages == nullptr ? nullptr : model.stages[index].reserve(aligned(bytes));
  if (found == nullptr) fail("out of memory");
  if (found != nullptr && fill) std::memcpy(found, data, bytes);
  return found;
}

static bool call(Model& model, int step, Kernel kernel, Value* values, int count) {
  Value result{};
  if (model.seconds == nullptr) return kernel(nullptr, values, count, &result) == 0;
  double start = now();
  int status = kernel(nullptr, values, count, &result);
  model.seconds[step] += now() - start;
  return status == 0;
}

bool execute(Model& model, const Plan& plan, const Frame& frame) {
  const Operand* operand = plan.operands;
  for (int step = 0; step < plan.count; ++step) {
    const Step& one = plan.steps[step];
    int64_t* extent = frame.extents;
    for (int i = 0; i < one.count; ++i, ++operand) {
      Value& value = frame.values[i];
      if (operand->space == kNumber) {
        value = Value{1, 0, {frame.sizes[operand->at]}};
        continue;
      }
      const uint16_t* dims = plan.shapes + operand->shape;
      Tensor& tensor = frame.tensors[i];
      tensor = Tensor{nullptr, {1, 0}, *dims, plan.types[operand->type], extent, nullptr, 0};
      for (int axis = *dims; axis > 0; --axis) *extent++ = frame.sizes[*++dims];
      uint64_t bytes = static_cast<uint64_t>(operand->at) * 64;
      tensor.data = operand->space == kWeights  ? const_cast<char*>(model.weights) + bytes
                    : operand->space == kTables ? model.spread.held() + bytes
                                                : frame.places[operand->space][operand->at];
      value.type = 7;
      value.padding = 0;
      value.pointer = &tensor;
    }
    Tensor* tensors = frame.tensors;
    if (one.kernel == kCopy) {
      int64_t bytes = tensors[1].dtype.bits / 8;
      for (int axis = 0; axis < tensors[1].rank; ++axis) bytes *= tensors[1].shape[axis];
      std::memcpy(tensors[1].data, tensors[0].data, bytes);
    } else if (one.kernel == kFill) {
      for (int i = 1; i < one.count; ++i) static_cast<int64_t*>(tensors[0].data)[i - 1] = frame.values[i].number;
    } else if (one.kernel == kRequire) {
      if (!*static_cast<const char*>(tensors[0].data)) return fail(plan.texts[frame.values[1].number]), false;
    } else {
      auto at = reinterpret_cast<intptr_t>(plan.kernels) + plan.kernels[one.kernel];
      if (!call(model, step, reinterpret_cast<Kernel>(at), frame.values, one.count)) return false;
    }
  }
  return true;
}

// A file is mapped in small pages, so large weights are copied, and the memory of the file is given back.
static const char* closer(Model& model, const char* weights, uint64_t bytes) {
  char* copy = bytes < kLarge ? nullptr : model.copied.reserve(static_cast<int64_t>(bytes));
  if (copy == nullptr) return weights;
  std::memcpy(copy, weights, bytes);
  give_back(weights, bytes);
  return copy;
}

bool fill(Model& model, const char* weights, int64_t size, const Table* tables, int count, int64_t bytes) {
  model.weights = closer(model, weights, size);
  char* out = count == 0 ? nullptr : model.spread.reserve(bytes);
  for (int i = 0; out != nullptr && i < count; ++i) {
    const Table& table = tables[i];
    for (uint64_t k = 0; k < table.count; ++k) {
      auto code = static_cast<unsigned char>(weights[table.codes + k]);
      std::memcpy(out + table.at + 4 * k, weights + table.words + 4 * code, 4);
    }
  }
  return count == 0 || out != nullptr;
}

}  // namespace optc

struct optc_model : optc::Model {
  using optc::Model::Model;
};

extern "C" {

optc_model* optc_open(int threads) {
  if (threads <= 0) threads = static_cast<int>(sysconf(optc::kCores));
  void* place = optc::allocate(sizeof(optc_model));
  if (place == nullptr) return nullptr;
  auto* model = new (place) optc_model(threads > 0 ? threads : 1);
  if (optc_plan::spread(*model)) return model;
  optc_close(model);
  return nullptr;
}

void optc_close(optc_model* model) {
  model->~optc_model();
  std::free(model);
  optc::release();
}

int optc_shapes(optc_model*, const int64_t* const* input_dims, int64_t* const* output_dims) {
  return optc_plan::shapes_of(input_dims, output_dims) ? 0 : -1;
}

int optc_run(optc_model* model, const void* const* inputs, const int64_t* const* input_dims, void* const* outputs) {
  optc::Pool* before = optc::current;
  optc::current = &model->pool;
  bool done = optc_plan::run(*model, inputs, input_dims, outputs);
  optc::current = before;
  return done ? 0 : -1;
}

void optc_time(optc_model* model, double* seconds) { model->seconds = seconds; }

const char* optc_error(void) { return optc::last_error; }

// What the kernels call. They reach these through pointers of their own, which a loader would set.
static int optc_parallel(int (*task)(int, void*, void*), void* data, int) { return optc::current->run(task, data); }

static void* optc_workspace(int, int, uint64_t bytes, int, int) {
  optc::Block* best = nullptr;
  for (optc::Block* block = optc::blocks; block != nullptr; block = block->next)
    if (!block->used && block->size >= bytes && (best == nullptr || block->size < best->size)) best = block;
  if (best == nullptr) {
    best = static_cast<optc::Block*>(optc::allocate(bytes + optc::kHead));
    if (best == nullptr) return nullptr;
    *best = optc::Block{optc::blocks, bytes, true};
    optc::blocks = best;
  }
  best->used = true;
  return reinterpret_cast<char*>(best) + optc::kHead;
}

static int optc_workspace_free(int, int, void* data) {
  reinterpret_cast<optc::Block*>(static_cast<char*>(data) - optc::kHead)->used = false;
  return 0;
}

// Hidden, or a process that has loaded TVM would set them to its own.
#pragma GCC visibility push(hidden)
#ifdef __arm__
// Tables of what to do in exceptions name these; there are none, and so no need for what unwinds them.
void __aeabi_unwind_cpp_pr0() {}
void __aeabi_unwind_cpp_pr1() {}
#endif

int (*__TVMBackendParallelLaunch)(int (*)(int, void*, void*), void*, int) = optc_parallel;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = optc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = optc_workspace_free;

void TVMFFIErrorSetRaisedFromCStr(const char*, const char* message) { optc::fail(message); }

void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char** parts, int32_t count) {
  size_t at = 0;
  for (int32_t i = 0; i < count && at + 1 < sizeof optc::last_error; ++i) {
    if (parts[i] == nullptr) continue;
    int wrote = std::snprintf(optc::last_error + at, sizeof optc::last_error - at, "%s", parts[i]);
    at += wrote > 0 ? static_cast<size_t>(wrote) : 0;
  }
}
#pragma GCC visibility pop

}  // extern "C"
