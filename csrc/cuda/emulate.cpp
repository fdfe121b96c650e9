#define FASTPOOL_EMULATED
#include "cuda/emulate.h"

#include <cxxabi.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <tuple>

namespace fastpool::emulated {

cuda::Limits limits;

void set_limits(Emulated emulated) {
  limits = {};
  if (emulated == Emulated::small_grid) limits = {200, 3, cuda::kMostIndex, 1};
  if (emulated == Emulated::wide_indices) limits.sizes = 0;
  if (emulated == Emulated::large) limits.enough_threads = 1;
}

namespace {

constexpr int64_t kSector = 32;
// Loads that a thread has in flight together: sectors that its neighbours leave half used are still in the L1 cache.
constexpr uint32_t kLoadsTogether = 4;

struct Access {
  uint32_t pass, turn;  // accesses of one warp with the same numbers belong together
  uintptr_t address;
  int64_t bytes;
};

struct Thread {
  uint32_t pass = 0, reads = 0, writes = 0;
};

struct Recorder {
  Record record;
  std::vector<Access> reads[1024 / cuda::kWarp], writes[1024 / cuda::kWarp];  // of the block that runs, by warp
  Thread threads[1024];
  int thread = 0;
  std::vector<std::pair<uintptr_t, int>> edges;  // where something written begins, +1, and ends, -1
} recorder;

void add(std::vector<Access>& accesses, Traffic& traffic) {
  std::sort(accesses.begin(), accesses.end(), [](const Access& a, const Access& b) {
    return std::tie(a.pass, a.turn, a.address, a.bytes) < std::tie(b.pass, b.turn, b.address, b.bytes);
  });
  for (size_t i = 0; i < accesses.size();) {
    const Access first = accesses[i];
    uintptr_t end = 0, end_sector = 0;  // of what was counted
    int64_t bytes = 0;
    for (; i < accesses.size() && accesses[i].pass == first.pass && accesses[i].turn == first.turn; ++i) {
      const uintptr_t begin = accesses[i].address, stop = begin + uintptr_t(accesses[i].bytes);
      const uintptr_t begin_sector = begin / kSector, stop_sector = (stop - 1) / kSector + 1;
      if (stop > end) bytes += int64_t(stop - std::max(begin, end));
      if (stop_sector > end_sector) traffic.sectors += int64_t(stop_sector - std::max(begin_sector, end_sector));
      end = std::max(end, stop);
      end_sector = std::max(end_sector, stop_sector);
    }
    traffic.ideal += (bytes + kSector - 1) / kSector;
  }
  traffic.accesses += int64_t(accesses.size());
  accesses.clear();
}

std::string name_of(const std::type_info& type) {
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr);
  std::string name = text ? text : type.name();
  std::free(text);
  for (const std::string prefix : {"fastpool::", "cuda::"})
    for (size_t at; (at = name.find(prefix)) != std::string::npos;) name.erase(at, prefix.size());
  return name;
}

thread_local unsigned order = 0;
thread_local std::minstd_rand random_numbers;

}  // namespace

void set_order(unsigned number) {
  order = number;
  random_numbers.seed(number + 1);
}

void fail(const char* what) {
  std::fprintf(stderr, "fastpool: emulated threads %s (order %u)\n", what, order);
  std::abort();
}

#if defined(__linux__)
Order::Order(int count) : in_block(size_t(count)), in_warp(size_t(count)) {}

void Order::shuffle() {
  std::vector<int> turn(in_block.size());
  std::iota(turn.begin(), turn.end(), 0);
  const auto close = [&](std::vector<int>& following, auto begin, auto end) {
    std::shuffle(begin, end, random_numbers);
    for (auto at = begin; at != end; ++at) following[size_t(*at)] = at + 1 == end ? *begin : at[1];
  };
  for (auto warp = turn.begin(); warp != turn.end(); warp += cuda::kWarp) close(in_warp, warp, warp + cuda::kWarp);
  close(in_block, turn.begin(), turn.end());
}
#endif

bool recording = false;

void note_thread(int thread, uint32_t pass) {
  recorder.thread = thread;
  recorder.threads[thread] = {pass, 0, 0};
}
void note_same_thread(int thread) { recorder.thread = thread; }

void note(const void* at, int64_t bytes, bool writes) {
  Thread& thread = recorder.threads[recorder.thread];
  const int warp = recorder.thread / cuda::kWarp;
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  if (writes) {
    recorder.writes[warp].push_back({thread.pass, thread.writes++, address, bytes});
    recorder.edges.push_back({address, 1});
    recorder.edges.push_back({address + uintptr_t(bytes), -1});
  } else {
    recorder.reads[warp].push_back({thread.pass, thread.reads++ / kLoadsTogether, address, bytes});
  }
}

void note_end_of_block(const std::type_info& body) {
  const std::string name = name_of(body);
  for (auto& accesses : recorder.reads) add(accesses, recorder.record.reads[name]);
  for (auto& accesses : recorder.writes) add(accesses, recorder.record.writes[name]);
}

void start_recording() {
  recorder = {};
  recording = true;
}

Record stop_recording() {
  recording = false;
  auto& edges = recorder.edges;
  std::sort(edges.begin(), edges.end());
  int64_t times = 0;
  for (size_t i = 0; i < edges.size();) {
    const uintptr_t at = edges[i].first;
    const int64_t before = times;
    for (; i < edges.size() && edges[i].first == at; ++i) times += edges[i].second;
    auto& written = recorder.record.written;
    if (before > 0) written.back().bytes = int64_t(at - written.back().address);
    if (times > 0 && times == before) continue;
    if (times > 0) written.push_back({at, 0, times});
  }
  return std::move(recorder.record);
}

#if defined(__linux__)
template <class Act>
struct Faulty {
  static constexpr int threads = 32;
  Act act;

  int64_t total() const { return 16; }
  int64_t step() const { return 1; }
  void begin_at(int64_t) {}
  template <class Thread>
  void operator()(const Thread& thread, uint32_t unit) const {
    act(thread, int(unit));
  }
};

void run_faulty(const std::string& fault) {
  alignas(16) const float values[8] = {};
  const auto run = [&](const char* name, auto act) {
    if (fault == name) Launcher{nullptr, {cuda::kMostIndex, 1}}(Faulty<decltype(act)>{act});
  };
  run("lane 32", [](const auto& thread, int) { thread.shuffle(0, thread.index % 32 ^ 32); });
  run("lane -1", [](const auto& thread, int) { thread.shuffle(0, thread.index % 32 - 1); });
  run("another shuffle", [](const auto& thread, int) { thread.index == 7 ? thread.shuffle(0, 0) : thread.shuffle(0.f, 0); });
  run("another pass", [](const auto& thread, int unit) {
    for (int i = 0; i < (thread.index == 7 && unit < 8 ? 2 : 1); ++i) thread.shuffle(0, 0);
  });
  run("ended lane", [](const auto& thread, int) { thread.index == 7 ? 0 : thread.shuffle(0, 0); });
  run("ended thread", [](const auto& thread, int) { thread.index == 7 ? void() : thread.barrier(); });
  run("shuffle and barrier", [](const auto& thread, int) { thread.index == 7 ? thread.barrier() : void(thread.shuffle(0, 0)); });
  run("race", [](const auto& thread, int) { thread.template slots<int>()[0] = thread.index; });
  run("beyond shared memory", [](const auto& thread, int) { thread.template slots<int>()[512 + thread.index] = 0; });
  run("unmet contract", [](const auto&, int) { Axis{}.window(1); });
  run("unaligned access", [&](const auto&, int) { cuda::read(reinterpret_cast<const cuda::Pack<float, 4>*>(values + 1)); });
}
#endif

}  // namespace fastpool::emulated
