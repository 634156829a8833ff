// Runs a compiled model on .npy files; see kHelp.
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "model.h"

namespace {

using Shape = std::vector<int64_t>;

const char kHelp[] =
    "usage: runner [--threads N] [--repeat N] [--times FILE] [--out FOLDER] [--force] INPUT.npy ...\n\n"
    "Runs the model on its inputs, in the order below, and writes each output to FOLDER/NAME.npy, where NAME is\n"
    "the output's name in letters, digits, '.', '_' and '-'. Prints how long a run takes, in milliseconds.\n\n"
    "  --threads N   threads of the model; 0 takes one for each core (1)\n"
    "  --repeat N    run N times, and print the median with the quartiles (1)\n"
    "  --times FILE  write how long each run took, in milliseconds, in their order\n"
    "  --out FOLDER  where outputs go; it is made where it is missing (.)\n"
    "  --force       replace files that are there\n"
    "  --help        print this\n";

[[noreturn]] void stop(const std::string& what) {
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(2);
}

std::string described(const optc_tensor& tensor) {
  std::string text = std::string("  ") + tensor.name + ": " + tensor.dtype + " [";
  for (int i = 0; i < tensor.rank; ++i)
    text += (i ? ", " : "") + (tensor.dims[i] < 0 ? std::string("?") : std::to_string(tensor.dims[i]));
  return text + "]\n";
}

[[noreturn]] void help() {
  std::string text = kHelp;
  text += "\ninputs:\n";
  for (int i = 0; i < optc_input_count; ++i) text += described(optc_inputs[i]);
  text += "outputs:\n";
  for (int i = 0; i < optc_output_count; ++i) text += described(optc_outputs[i]);
  std::fputs(text.c_str(), stdout);
  std::exit(0);
}

int number(const std::string& flag, const char* text, int least) {
  char* end = nullptr;
  errno = 0;
  long value = std::strtol(text, &end, 10);
  if (end == text || *end != 0 || errno != 0 || value < least || value > 1000000000)
    stop(flag + " takes a number from " + std::to_string(least) + " on, not " + text);
  return static_cast<int>(value);
}

// The files of the outputs: their names as far as any file system takes them, each once.
std::vector<std::string> file_names() {
  std::vector<std::string> names;
  std::set<std::string> used;
  for (int i = 0; i < optc_output_count; ++i) {
    std::string name = optc_outputs[i].name;
    for (char& one : name)
      if (std::strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", one) == nullptr) one = '_';
    if (name.size() > 100) name.resize(100);
    if (name.empty() || name[0] == '.' || name[0] == '-') name.insert(0, "_");
    std::string folded = name;
    std::transform(folded.begin(), folded.end(), folded.begin(), [](unsigned char c) { return std::tolower(c); });
    if (!used.insert(folded).second) {
      name += "-" + std::to_string(i);
      used.insert(folded + "-" + std::to_string(i));
    }
    names.push_back(name + ".npy");
  }
  return names;
}

int64_t elements(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

size_t item_size(const std::string& dtype) { return static_cast<size_t>(std::atoi(dtype.c_str() + 2)); }

std::string quoted(const std::string& header, const std::string& key) {
  size_t at = header.find("'" + key + "'");
  size_t from = at == std::string::npos ? at : header.find('\'', header.find(':', at));
  size_t to = from == std::string::npos ? from : header.find('\'', from + 1);
  if (to == std::string::npos) stop("a .npy header has no " + key);
  return header.substr(from + 1, to - from - 1);
}

// The data of a .npy file, which must hold what the model's input is declared to be.
std::vector<char> read(const std::string& path, const optc_tensor& wanted, Shape& shape) {
  std::ifstream file(path, std::ios::binary);
  if (!file) stop("cannot read " + path);
  std::vector<char> all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (all.size() < 12 || std::memcmp(all.data(), "\x93NUMPY", 6) != 0) stop(path + " is no .npy file");
  const auto* bytes = reinterpret_cast<const unsigned char*>(all.data());
  size_t wide = bytes[6] >= 2 ? 4 : 2, length = 0;
  for (size_t i = 0; i < wide; ++i) length |= static_cast<size_t>(bytes[8 + i]) << (8 * i);
  if (8 + wide + length > all.size()) stop(path + " is cut short");
  std::string header(all.data() + 8 + wide, length);
  std::string dtype = quoted(header, "descr");
  if (dtype != wanted.dtype) stop(path + " holds " + dtype + ", and the model takes " + wanted.dtype);
  if (header.find("'fortran_order': True") != std::string::npos) stop(path + " is in Fortran order; write it in C order");
  shape.clear();
  size_t at = header.find('(', header.find("'shape'")), end = header.find(')', at);
  for (const char* p = header.c_str() + at + 1; p < header.c_str() + end;) {
    char* next = nullptr;
    long long size = std::strtoll(p, &next, 10);
    if (next == p) {
      ++p;
    } else {
      shape.push_back(size);
      p = next;
    }
  }
  if (static_cast<int>(shape.size()) != wanted.rank) stop(path + " has another number of axes than the model takes");
  std::vector<char> data(all.begin() + static_cast<long>(8 + wide + length), all.end());
  if (data.size() != static_cast<size_t>(elements(shape)) * item_size(dtype)) stop(path + " is cut short");
  return data;
}

void write(const std::string& path, const std::string& dtype, const Shape& shape, const std::vector<char>& data) {
  std::string header = "{'descr': '" + dtype + "', 'fortran_order': False, 'shape': (";
  for (int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  const char start[] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<char>(header.size() & 255),
                        static_cast<char>(header.size() >> 8)};
  file.write(start, sizeof start);
  file << header;
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  if (!file) stop("cannot write " + path);
}

}  // namespace

int main(int argc, char** argv) {
  int threads = 1, repeat = 1;
  bool force = false;
  std::string out = ".", log;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--help" || word == "-h") help();
    if (word == "--force") {
      force = true;
    } else if (word == "--threads" || word == "--repeat" || word == "--times" || word == "--out") {
      if (++i == argc) stop(word + " needs a value");
      if (word == "--threads") threads = number(word, argv[i], 0);
      if (word == "--repeat") repeat = number(word, argv[i], 1);
      if (word == "--times") log = argv[i];
      if (word == "--out") out = argv[i];
    } else if (word.rfind("--", 0) == 0) {
      stop("there is no " + word + "; see --help");
    } else {
      files.push_back(word);
    }
  }
  if (static_cast<int>(files.size()) != optc_input_count)
    stop("the model takes " + std::to_string(optc_input_count) + " inputs, not " + std::to_string(files.size()) + "; see --help");
  if (mkdir(out.c_str(), 0777) != 0 && errno != EEXIST) stop("cannot make the folder " + out);
  std::vector<std::string> to_files;
  for (const std::string& name : file_names()) {
    to_files.push_back(out + "/" + name);
    struct stat found;
    if (!force && stat(to_files.back().c_str(), &found) == 0)
      stop(to_files.back() + " is there already; --force replaces it, --out FOLDER writes elsewhere");
  }

  std::vector<Shape> shapes(files.size());
  std::vector<std::vector<char>> inputs, outputs;
  std::vector<const void*> from;
  std::vector<const int64_t*> dims;
  for (size_t i = 0; i < files.size(); ++i) inputs.push_back(read(files[i], optc_inputs[i], shapes[i]));
  for (size_t i = 0; i < files.size(); ++i) {
    from.push_back(inputs[i].data());
    dims.push_back(shapes[i].data());
  }
  optc_model* model = optc_open(threads);
  if (model == nullptr) stop(optc_error());
  std::vector<Shape> made;
  std::vector<int64_t*> sizes;
  std::vector<void*> to;
  for (int i = 0; i < optc_output_count; ++i) made.emplace_back(optc_outputs[i].rank);
  for (Shape& shape : made) sizes.push_back(shape.data());
  if (optc_shapes(model, dims.data(), sizes.data()) != 0) stop(optc_error());
  for (int i = 0; i < optc_output_count; ++i)
    outputs.emplace_back(static_cast<size_t>(elements(made[i])) * item_size(optc_outputs[i].dtype));
  for (auto& data : outputs) to.push_back(data.data());

  std::vector<double> times;
  for (int i = 0; i < repeat; ++i) {
    auto start = std::chrono::steady_clock::now();
    if (optc_run(model, from.data(), dims.data(), to.data()) != 0) stop(optc_error());
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  optc_close(model);
  for (int i = 0; i < optc_output_count; ++i) write(to_files[i], optc_outputs[i].dtype, made[i], outputs[i]);
  if (!log.empty()) {
    std::ofstream file(log);
    for (double time : times) file << time << "\n";
    if (!file) stop("cannot write " + log);
  }
  std::sort(times.begin(), times.end());
  auto quantile = [&times](double share) {
    double at = share * static_cast<double>(times.size() - 1);
    auto low = static_cast<size_t>(at);
    size_t high = std::min(low + 1, times.size() - 1);
    return times[low] + (at - static_cast<double>(low)) * (times[high] - times[low]);
  };
  std::printf("%.4f ms", quantile(0.5));
  if (repeat > 1) std::printf(" (quartiles %.4f to %.4f, %d runs)", quantile(0.25), quantile(0.75), repeat);
  std::printf("\n");
  return 0;
}
