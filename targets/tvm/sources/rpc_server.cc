// A server of TVM's RPC for devices without Python: `optc ... --rpc HOST:PORT` runs libraries on it.
//
//   rpc_server [--port N] [--host ADDRESS] [--key-file FILE]
//              [--seconds N] [--idle N] [--memory MIB] [--file MIB] [--disk MIB] [--files N]
//
// listens on N (any free one unless given) of the loopback, prints it, and serves each client in a process and a folder
// of its own, one at work at a time; both go with the client, and with the server. It trusts its clients: who is let in
// runs code here. So any address but a loopback one needs a key, the first line of FILE, which clients give in
// OPTC_RPC_KEY; it is compared in constant time, and sent in the clear: tunnel what leaves a network that is yours.
// A session ends after --seconds in all (an hour), --idle of silence (ten minutes), or beyond --memory of data (three
// quarters of the machine's); --file bounds each file that it writes (1024), --disk (2048) and --files (256) what its
// folder holds in all: an upload beyond them is refused, and a library that writes beyond them ends the session.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

namespace {

namespace ffi = tvm::ffi;

constexpr int32_t kMagic = 0xFF271;
constexpr int32_t kMismatch = kMagic + 2;
constexpr int32_t kLongestKey = 4096;
constexpr int kMostClients = 64;
constexpr unsigned kGreeting = 10;  // seconds

struct Limits {
  long seconds = 3600, idle = 600, memory = 0, file = 1024, disk = 2048, files = 256;
};

[[noreturn]] void stop(const std::string& what) {
  std::fprintf(stderr, "rpc_server: %s\n", what.c_str());
  std::exit(2);
}

// All of so many bytes; false where the other side went away.
bool receive(int socket, void* to, size_t bytes) {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    ssize_t got = recv(socket, at, bytes, 0);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

void send_number(int socket, int32_t number) { (void)!send(socket, &number, sizeof number, MSG_NOSIGNAL); }

// Whether two texts are equal, in a time that does not tell where they differ.
bool same(const std::string& one, const std::string& other) {
  unsigned char differs = one.size() != other.size();
  for (size_t i = 0; i < other.size(); ++i) differs |= other[i] ^ (i < one.size() ? one[i] : '\0');
  return differs == 0;
}

// The greeting: who it is (`client:KEY`, behind which there may be options), and who we are. Numbers are little-endian.
bool greet(int socket, const std::string& key) {
  int32_t magic = 0, length = 0;
  if (!receive(socket, &magic, sizeof magic) || magic != kMagic) return false;
  if (!receive(socket, &length, sizeof length) || length < 0 || length > kLongestKey) return false;
  std::string told(static_cast<size_t>(length), '\0');
  if (!receive(socket, told.data(), told.size())) return false;
  if (!key.empty() && !same(told.substr(0, told.find(' ')), "client:" + key)) {
    send_number(socket, kMismatch);
    return false;
  }
  const std::string ours = "server:";
  send_number(socket, kMagic);
  send_number(socket, static_cast<int32_t>(ours.size()));
  (void)!send(socket, ours.data(), ours.size(), MSG_NOSIGNAL);
  return true;
}

// A name in the folder of this session, and in no other.
std::string inside(const std::string& name) { return std::filesystem::absolute(std::filesystem::path(name).filename()); }

// What a folder holds, the folders in it included: bytes on the disk and entries. Links are not followed.
struct Usage {
  uint64_t bytes = 0, entries = 0;
  bool beyond(const Limits& limits) const {
    return bytes > uint64_t(limits.disk) << 20 || entries > uint64_t(limits.files);
  }
};

void add_usage(int parent, const char* name, int depth, Usage* sum) {
  int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return;
  DIR* entries = fdopendir(folder);
  if (entries == nullptr) {
    close(folder);
    return;
  }
  while (dirent* entry = readdir(entries)) {
    struct stat about;
    if (!std::strcmp(entry->d_name, ".") || !std::strcmp(entry->d_name, "..")) continue;
    if (fstatat(folder, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0) continue;
    sum->bytes += uint64_t(about.st_blocks) * 512;
    sum->entries += 1;
    // So deep a folder counts as too many, and not as a way out of sight.
    if (S_ISDIR(about.st_mode) && depth == 0) sum->entries = UINT32_MAX;
    if (S_ISDIR(about.st_mode) && depth > 0) add_usage(folder, entry->d_name, depth - 1, sum);
  }
  closedir(entries);
}

Usage usage_of(const char* folder) {
  Usage sum;
  add_usage(AT_FDCWD, folder, 16, &sum);
  return sum;
}

// A file from the client, in place of the runtime's own function, which knows no bounds.
void upload(const std::string& name, const std::string& data, const Limits& limits) {
  Usage after = usage_of(".");
  after.bytes += data.size();
  after.entries += 1;
  if (after.beyond(limits)) {
    TVM_FFI_THROW(RuntimeError) << "a session holds at most " << limits.disk << " MiB in " << limits.files << " files";
  }
  const std::string path = inside(name);
  std::ofstream file(path, std::ios::binary);
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  file.close();
  if (file.fail()) {
    unlink(path.c_str());
    TVM_FFI_THROW(RuntimeError) << "cannot write " << name;
  }
}

[[noreturn]] void serve(int socket, const Limits& limits) {
  ffi::Function::SetGlobal("tvm.rpc.server.workpath",
                           ffi::Function::FromTyped([](ffi::String name) { return ffi::String(inside(name)); }), true);
  ffi::Function::SetGlobal(
      "tvm.rpc.server.load_module",
      ffi::Function::FromTyped([](ffi::String name) { return ffi::Module::LoadFromFile(inside(name)); }), true);
  ffi::Function::SetGlobal("tvm.rpc.server.upload",
                           ffi::Function::FromTyped([limits](ffi::String name, ffi::Bytes data) {
                             upload(name, data, limits);
                           }),
                           true);
  ffi::Function::GetGlobalRequired("rpc.ServerLoop")(socket);
  std::_Exit(0);
}

void wait_for(int socket, long seconds) {
  timeval patience{seconds, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

void bound(int what, long most) {
  rlimit limit{static_cast<rlim_t>(most), static_cast<rlim_t>(most)};
  setrlimit(what, &limit);
}

long quarters_of_memory() { return sysconf(_SC_PHYS_PAGES) / 4 * 3 * (sysconf(_SC_PAGE_SIZE) / 1024) / 1024; }

// Whether a worker ends by itself while it keeps to its time and to its part of the disk.
bool ends_within(const Limits& limits, const sigset_t& signals, const std::string& folder) {
  timespec start{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    timespec glance{0, 100'000'000};
    int signal = sigtimedwait(&signals, nullptr, &glance);
    if (signal >= 0) return signal == SIGCHLD;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - start.tv_sec < limits.seconds && !usage_of(folder.c_str()).beyond(limits));
  return false;
}

// One client, in a process that keeps its folder and its worker: what a model does to its process ends with it.
[[noreturn]] void session(int socket, int turn, pid_t server, const std::string& key, const Limits& limits) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != server) std::_Exit(0);
  signal(SIGTERM, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  alarm(kGreeting);  // in all, however slowly it comes: who is not let in yet keeps others out
  if (!greet(socket, key)) std::_Exit(0);
  alarm(0);
  wait_for(socket, limits.idle);
  flock mine{};
  mine.l_type = F_WRLCK;  // the others wait, so that times are those of one
  if (fcntl(turn, F_SETLKW, &mine) != 0) std::_Exit(2);
  sigset_t told;
  sigemptyset(&told);
  for (int one : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&told, one);
  sigprocmask(SIG_BLOCK, &told, nullptr);
  std::string folder = (std::filesystem::temp_directory_path() / "rpc_server-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) stop("cannot make a folder for a session");
  pid_t keeper = getpid(), worker = fork();
  if (worker == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_UNBLOCK, &told, nullptr);
    if (getppid() != keeper || chdir(folder.c_str()) != 0) std::_Exit(2);
    bound(RLIMIT_DATA, limits.memory << 20);
    bound(RLIMIT_FSIZE, limits.file << 20);
    bound(RLIMIT_CORE, 0);
    serve(socket, limits);
  }
  close(socket);
  if (worker > 0 && !ends_within(limits, told, folder)) kill(worker, SIGKILL);
  if (worker > 0) waitpid(worker, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  std::_Exit(0);
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line.empty()) stop("no key in the first line of " + path);
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  std::string host = "127.0.0.1", key;
  int port = 0;
  Limits limits;
  limits.memory = quarters_of_memory();
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (i + 1 == argc) stop(word + " needs a value");
    const char* value = argv[++i];
    long number = std::atol(value);
    if (word == "--port") {
      port = static_cast<int>(number);
    } else if (word == "--host") {
      host = value;
    } else if (word == "--key-file") {
      key = first_line(value);
    } else if (number <= 0) {
      stop(word + " takes a number above 0, or is nothing that this server takes");
    } else if (word == "--seconds") {
      limits.seconds = number;
    } else if (word == "--idle") {
      limits.idle = number;
    } else if (word == "--memory") {
      limits.memory = number;
    } else if (word == "--file") {
      limits.file = number;
    } else if (word == "--disk") {
      limits.disk = number;
    } else if (word == "--files") {
      limits.files = number;
    } else {
      stop("takes --port, --host, --key-file, --seconds, --idle, --memory, --file, --disk and --files, not " + word);
    }
  }
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &at.sin_addr) != 1) stop(host + " is no address");
  if ((ntohl(at.sin_addr.s_addr) >> 24) != 127 && key.empty())
    stop("whoever reaches " + host + " could run code here: give --key-file, or listen on 127.0.0.1");
  int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listening, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listening, kMostClients) != 0)
    stop("cannot listen on port " + std::to_string(port));
  socklen_t size = sizeof at;
  getsockname(listening, reinterpret_cast<sockaddr*>(&at), &size);
  std::printf("%d\n", ntohs(at.sin_port));
  std::fflush(stdout);
  char lock[] = "/tmp/rpc_server-turn-XXXXXX";
  int turn = mkstemp(lock);
  if (turn < 0) stop("cannot write in /tmp");
  unlink(lock);
  pid_t server = getpid();
  int clients = 0;
  for (;;) {
    int client = accept(listening, nullptr, nullptr);
    while (waitpid(-1, nullptr, WNOHANG) > 0) --clients;
    if (client < 0) continue;
    if (clients < kMostClients) {
      pid_t child = fork();
      if (child == 0) {
        close(listening);
        session(client, turn, server, key, limits);
      }
      clients += child > 0;
    }
    close(client);
  }
}
