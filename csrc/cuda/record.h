// What emulated threads do to tensors, for the tests. In ordinary runs only that addresses are aligned is looked at.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <typeinfo>
#include <vector>

namespace fastpool::emulated {

// What the warps of a kernel touched: sectors of 32 bytes, and how few of them could hold as many bytes.
struct Traffic {
  int64_t accesses = 0, sectors = 0, ideal = 0;
};
// Neighbouring bytes that were written equally often.
struct Written {
  uintptr_t address;
  int64_t bytes, times;
};
struct Record {
  std::map<std::string, Traffic> reads, writes;  // by kernel
  std::vector<Written> written;
};
// Weak, as all of the emulation: other builds leave it out.
__attribute__((weak, visibility("default"))) void start_recording();
__attribute__((weak, visibility("default"))) Record stop_recording();

extern bool recording;

// One access of the thread that runs.
void note(const void* at, int64_t bytes, bool writes);
// From here on it is this thread of a block, in this pass of its loop over the grid.
void note_thread(int thread, uint32_t pass);
void note_same_thread(int thread);
void note_end_of_block(const std::type_info& body);

// Threads run in a random order, which a number repeats.
__attribute__((weak, visibility("default"))) void set_order(unsigned order);
[[noreturn]] void fail(const char* what);
// Runs a kernel with this fault, which has to end the process.
__attribute__((weak, visibility("default"))) void run_faulty(const std::string& fault);

template <class X>
void touch(const X* at, bool writes) {
  if (reinterpret_cast<uintptr_t>(at) % alignof(X) != 0) fail("access an address that is not a multiple of the access");
  if (recording) note(at, sizeof(X), writes);
}

}  // namespace fastpool::emulated
