// What fastpool/_C.py calls by ctypes: how the library was built, and hooks for tests. Without Python's own interface one
// library serves every Python.
#include <limits>
#include <string>

#include "cpu/capability.h"
#include "cpu/work.h"
#include "cuda/record.h"
#include "ops/plan.h"

namespace fastpool {

extern const char* const kVersion;  // both written by setup.py
extern const char* const kSources;

static std::string text(const std::string& name, const std::string& value) { return '"' + name + "\": \"" + value + '"'; }

static std::string traffic(const std::map<std::string, emulated::Traffic>& kernels) {
  std::string result;
  for (const auto& [name, of] : kernels)
    result += (result.empty() ? "\"" : ", \"") + name + "\": [" + std::to_string(of.accesses) + ", " + std::to_string(of.sectors) + ", " +
              std::to_string(of.ideal) + ']';
  return '{' + result + '}';
}

}  // namespace fastpool

using namespace fastpool;

#pragma GCC visibility push(default)
extern "C" {

// Texts are JSON.
const char* fastpool_build_info() {
#ifdef USE_CUDA
  const std::string architectures = FASTPOOL_CUDA_ARCHITECTURES;
#else
  const std::string architectures;
#endif
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "gcc " __VERSION__;
#endif
  static const std::string info = '{' + text("version", kVersion) + ", " + text("sources", kSources) + ", " + text("cuda", architectures) +
                                  ", " + text("compiler", compiler) + '}';
  return info.c_str();
}

bool fastpool_can_emulate_cuda() { return can_emulate_cuda(); }
int fastpool_best_cpu_capability() { return int(cpu::best_capability()); }
int fastpool_cpu_capability() { return int(cpu::capability()); }
void fastpool_set_cpu_capability(int capability) { cpu::set_capability(cpu::Capability(capability)); }

int64_t fastpool_limit_scratch(int64_t bytes) { return cpu::limit_scratch(bytes); }
int64_t fastpool_scratch_size() { return cpu::scratch_size(); }

// These are called where can_emulate_cuda; the first also for the schedules of the CPU.
int fastpool_set_schedule(int choice) { return int(set_schedule_choice(ScheduleChoice(choice))); }
void fastpool_set_order(unsigned order) { emulated::set_order(order); }
void fastpool_run_faulty(const char* fault) { emulated::run_faulty(fault); }
void fastpool_start_recording() { emulated::start_recording(); }

const char* fastpool_stop_recording() {
  static std::string result;
  const emulated::Record record = emulated::stop_recording();
  std::string written;
  for (const auto& run : record.written)
    written += (written.empty() ? "[" : ", [") + std::to_string(run.address) + ", " + std::to_string(run.bytes) + ", " +
               std::to_string(run.times) + ']';
  result = "{\"reads\": " + traffic(record.reads) + ", \"writes\": " + traffic(record.writes) + ", \"written\": [" + written + "]}";
  return result.c_str();
}
}
#pragma GCC visibility pop
