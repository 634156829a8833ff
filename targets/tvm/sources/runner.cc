// Runs a compiled model on .npy files:
//
//   runner [--threads N] [--repeat N] [--out FOLDER] INPUT.npy ...
//
// takes the inputs in the model's order, writes each output to FOLDER/NUMBER.npy, and prints the fastest run in seconds.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "model.h"

namespace {

using Shape = std::vector<int64_t>;

[[noreturn]] void stop(const std::string& what) {
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(2);
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
  std::string out = ".";
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word.rfind("--", 0) == 0 && i + 1 == argc) stop(word + " needs a value");
    if (word == "--threads") {
      threads = std::atoi(argv[++i]);
    } else if (word == "--repeat") {
      repeat = std::atoi(argv[++i]);
    } else if (word == "--out") {
      out = argv[++i];
    } else {
      files.push_back(word);
    }
  }
  if (static_cast<int>(files.size()) != optc_input_count)
    stop("the model takes " + std::to_string(optc_input_count) + " inputs, not " + std::to_string(files.size()));

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

  double best = 1e30;
  for (int i = 0; i < (repeat > 0 ? repeat : 1); ++i) {
    auto start = std::chrono::steady_clock::now();
    if (optc_run(model, from.data(), dims.data(), to.data()) != 0) stop(optc_error());
    double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (taken < best) best = taken;
  }
  optc_close(model);
  for (int i = 0; i < optc_output_count; ++i)
    write(out + "/" + std::to_string(i) + ".npy", optc_outputs[i].dtype, made[i], outputs[i]);
  std::printf("%.9f\n", best);
  return 0;
}
