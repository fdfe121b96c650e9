// The Python module fastpool._C: importing it registers the operations; it also tells how it was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "cpu/capability.h"
#include "cpu/work.h"
#include "cuda/record.h"
#include "ops/plan.h"

namespace py = pybind11;

namespace fastpool {

extern const char* const kVersion;  // both written by setup.py
extern const char* const kSources;

static const char* const kCapabilities[] = {"baseline", "avx2", "avx512"};
static const char* const kChoices[] = {"tiled", "exact", "cuda", "cuda small grid", "cuda wide indices", "cuda large"};
// The CPU's schedules stand behind them.
static std::vector<std::string> choices() {
  std::vector<std::string> names(std::begin(kChoices), std::end(kChoices));
  for (const char* name : cpu::kForwardSchedules) names.push_back(std::string("forward ") + name);
  for (const char* name : cpu::kBackwardSchedules) names.push_back(std::string("backward ") + name);
  return names;
}

static py::dict build_info() {
  py::dict info;
  info["version"] = kVersion;
  info["sources"] = kSources;
  std::vector<std::string> architectures;
#ifdef USE_CUDA
  std::string list = FASTPOOL_CUDA_ARCHITECTURES;
  for (char& c : list)
    if (c == ';') c = ' ';
  std::istringstream words(list);
  for (std::string word; words >> word;) architectures.push_back(word);
#endif
  info["cuda"] = architectures;
  info["emulation"] = can_emulate_cuda();
  info["cpu_capability"] = kCapabilities[int(cpu::capability())];
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  return info;
}

template <class Names>
static int index_of(const std::string& name, const Names& names, const char* argument) {
  std::string allowed;
  int i = 0;
  for (const std::string one : names) {
    if (name == one) return i;
    allowed += (i++ ? ", " : "") + one;
  }
  throw py::value_error(std::string(argument) + " is '" + name + "'; allowed: " + allowed);
}

static std::string set_cpu_capability(const std::optional<std::string>& name) {
  const cpu::Capability previous = cpu::capability(), best = cpu::best_capability();
  const auto wanted = name ? cpu::Capability(index_of(*name, kCapabilities, "name")) : best;
  if (wanted > best) throw py::value_error("name is '" + *name + "', which this processor lacks");
  cpu::set_capability(wanted);
  return kCapabilities[int(previous)];
}

static std::optional<int64_t> limit_scratch(std::optional<int64_t> bytes) {
  constexpr int64_t none = std::numeric_limits<int64_t>::max();
  const int64_t previous = cpu::limit_scratch(bytes.value_or(none));
  return previous == none ? std::nullopt : std::optional(previous);
}

static std::string set_schedule(const std::optional<std::string>& name) {
  const std::vector<std::string> names = choices();
  const auto choice = ScheduleChoice(name ? index_of(*name, names, "name") : 0);
  if (choice >= ScheduleChoice::cuda && choice < ScheduleChoice::forward && !can_emulate_cuda())
    throw py::value_error("name is '" + *name + "', which needs a build with FASTPOOL_EMULATION=1");
  return names[size_t(set_schedule_choice(choice))];
}

static std::vector<std::string> chosen_schedules() {
  const std::vector<std::string> names = choices();
  const Chosen last = last_chosen();
  std::vector<std::string> found;
  for (size_t i = 0; i < std::size(cpu::kForwardSchedules); ++i)
    if (last.forward >> i & 1) found.push_back(names[size_t(ScheduleChoice::forward) + i]);
  found.push_back(names[size_t(ScheduleChoice::backward) + size_t(last.backward)]);
  return found;
}

static void set_order(unsigned order) {
  if (!can_emulate_cuda()) throw py::value_error("order needs a build with FASTPOOL_EMULATION=1");
  emulated::set_order(order);
}

static void run_faulty(const std::string& fault) {
  if (!can_emulate_cuda()) throw py::value_error("fault needs a build with FASTPOOL_EMULATION=1");
  emulated::run_faulty(fault);
}

static py::dict traffic(const std::map<std::string, emulated::Traffic>& kernels) {
  py::dict result;
  for (const auto& [name, of] : kernels) result[name.c_str()] = py::make_tuple(of.accesses, of.sectors, of.ideal);
  return result;
}

static py::object record(bool on) {
  if (!can_emulate_cuda()) throw py::value_error("on needs a build with FASTPOOL_EMULATION=1");
  if (on) {
    emulated::start_recording();
    return py::none();
  }
  const emulated::Record record = emulated::stop_recording();
  py::list written;
  for (const auto& run : record.written) written.append(py::make_tuple(run.address, run.bytes, run.times));
  py::dict result;
  result["reads"] = traffic(record.reads);
  result["writes"] = traffic(record.writes);
  result["written"] = written;
  return result;
}

}  // namespace fastpool

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &fastpool::build_info, "Version, CUDA architectures and emulation, CPU capability in use and compiler, as a dict.");
  m.def("set_cpu_capability", &fastpool::set_cpu_capability, py::arg("name") = py::none(),
        "Force a CPU capability (None: the best); returns the previous one. For tests.");
  m.def("limit_scratch", &fastpool::limit_scratch, py::arg("bytes") = py::none(),
        "Let no thread have more scratch memory (None: no limit); returns the previous limit. For tests.");
  m.def("scratch_size", &fastpool::cpu::scratch_size, "Bytes of scratch memory that the calling thread keeps. For tests.");
  m.def("set_schedule", &fastpool::set_schedule, py::arg("name") = py::none(),
        "Force the exact schedule, emulate the CUDA schedules, or take one of the CPU's wherever it fits (None: by shape); returns "
        "the previous choice. For tests and benchmarks.");
  m.attr("SCHEDULES") = fastpool::choices();
  m.def("chosen_schedules", &fastpool::chosen_schedules,
        "The CPU schedules of the last operator called: a forward's levels have one each, a backward all levels one, the last "
        "name; of the other pass they tell nothing. For tests and benchmarks.");
  m.def("set_order", &fastpool::set_order, py::arg("order"), "Start the random order that emulated threads run in. For tests.");
  m.def("run_faulty", &fastpool::run_faulty, py::arg("fault"), "Emulate a kernel with a fault that ends the process. For tests.");
  m.def("record", &fastpool::record, py::arg("on"),
        "Record what emulated kernels read and write, or stop and tell it: {'reads', 'writes': {kernel: (accesses, sectors touched, "
        "sectors that would do)}, 'written': [(address, bytes, times)]}. For tests.");
}
