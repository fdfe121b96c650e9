// Preloaded beside ThreadSanitizer's runtime: tells it of the order that OpenMP's fork and join make between threads, whose
// runtime is not instrumented. What chunks of one parallel region do at the same time stays unordered, and is checked.
#include <dlfcn.h>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);

struct Region {
  void (*run)(void*);
  void* data;
};

static void run_and_tell(void* given) {
  Region* region = static_cast<Region*>(given);
  __tsan_acquire(region);
  region->run(region->data);
  __tsan_release(region);
}

void GOMP_parallel(void (*run)(void*), void* data, unsigned threads, unsigned flags) {
  static const auto real = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  Region region{run, data};
  __tsan_release(&region);
  real(run_and_tell, &region, threads, flags);
  __tsan_acquire(&region);
}
}
