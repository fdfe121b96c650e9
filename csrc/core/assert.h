// What a function relies on and its caller ensures. Builds for tests check it.
#pragma once

#if defined(FASTPOOL_CHECKED) && !defined(__CUDACC__)
#include <cstdio>
#include <cstdlib>

namespace fastpool {
[[noreturn]] inline __attribute__((noinline, cold)) void end_unmet(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "fastpool: %s:%d relies on %s\n", file, line, condition);
  std::abort();
}
}  // namespace fastpool
#define FASTPOOL_ASSERT(...) ((__VA_ARGS__) ? void() : ::fastpool::end_unmet(#__VA_ARGS__, __FILE__, __LINE__))
#else
#define FASTPOOL_ASSERT(...) void(sizeof((__VA_ARGS__) ? 1 : 0))
#endif
