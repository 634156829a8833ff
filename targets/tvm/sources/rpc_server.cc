// A server of TVM's RPC for devices without Python: `optc ... --rpc HOST:PORT` runs libraries on it.
//
//   rpc_server [--port N] [--host ADDRESS]
//
// listens on N (any free one unless given), prints it, and serves one client after the other, each in a process and a
// folder of its own, which go with it. It trusts its clients: whoever reaches the port runs code here.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

namespace {

namespace ffi = tvm::ffi;

constexpr int32_t kMagic = 0xFF271;
constexpr int32_t kLongestKey = 4096;

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

// The greeting: who it is (a key, which only trackers ask for), and who we are. Numbers are little-endian.
bool greet(int socket) {
  int32_t magic = 0, length = 0;
  if (!receive(socket, &magic, sizeof magic) || magic != kMagic) return false;
  if (!receive(socket, &length, sizeof length) || length < 0 || length > kLongestKey) return false;
  std::string told(static_cast<size_t>(length), '\0');
  if (!receive(socket, told.data(), told.size())) return false;
  const std::string ours = "server:";
  send_number(socket, kMagic);
  send_number(socket, static_cast<int32_t>(ours.size()));
  (void)!send(socket, ours.data(), ours.size(), MSG_NOSIGNAL);
  return true;
}

// A name in the folder of this session, and in no other.
std::string inside(const std::string& name) { return std::filesystem::absolute(std::filesystem::path(name).filename()); }

[[noreturn]] void serve(int socket) {
  ffi::Function::SetGlobal("tvm.rpc.server.workpath",
                           ffi::Function::FromTyped([](ffi::String name) { return ffi::String(inside(name)); }), true);
  ffi::Function::SetGlobal(
      "tvm.rpc.server.load_module",
      ffi::Function::FromTyped([](ffi::String name) { return ffi::Module::LoadFromFile(inside(name)); }), true);
  ffi::Function::GetGlobalRequired("rpc.ServerLoop")(socket);
  std::_Exit(0);
}

// One client, in a process of its own: what a model does to its process ends with it.
void session(int socket, int listening) {
  int on = 1;
  timeval patience{10, 0}, none{0, 0};
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (!greet(socket)) return;
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  std::string folder = (std::filesystem::temp_directory_path() / "rpc_server-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) stop("cannot make a folder for a session");
  pid_t child = fork();
  if (child < 0) stop("cannot start a process for a session");
  if (child == 0) {
    close(listening);
    if (chdir(folder.c_str()) != 0) std::_Exit(2);
    serve(socket);
  }
  waitpid(child, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

}  // namespace

int main(int argc, char** argv) {
  std::string host = "0.0.0.0";
  int port = 0;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (i + 1 == argc) stop(word + " needs a value");
    if (word == "--port") {
      port = std::atoi(argv[++i]);
    } else if (word == "--host") {
      host = argv[++i];
    } else {
      stop("takes --port and --host, not " + word);
    }
  }
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &at.sin_addr) != 1) stop(host + " is no address");
  int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listening, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listening, 4) != 0)
    stop("cannot listen on port " + std::to_string(port));
  socklen_t size = sizeof at;
  getsockname(listening, reinterpret_cast<sockaddr*>(&at), &size);
  std::printf("%d\n", ntohs(at.sin_port));
  std::fflush(stdout);
  for (;;) {
    int client = accept(listening, nullptr, nullptr);
    if (client < 0) continue;
    session(client, listening);
    close(client);
  }
}
