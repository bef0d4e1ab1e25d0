// The smallest test harness that names what failed. Each program is one test file: run() calls it, main returns 1 on a failure.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

namespace inro::test {

inline int failures = 0;
constexpr int maxShown = 40;  // a loop that fails says it often enough

#define CHECK(condition) ::inro::test::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_IS(actual, expected) ::inro::test::checkIs((actual), (expected), #actual, __FILE__, __LINE__)

inline bool check(bool holds, const char* words, const char* file, int line) {
  if (holds) return true;
  if (failures++ < maxShown) std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, words);
  return false;
}

inline std::string shown(const std::string& text) { return '"' + text + '"'; }
inline std::string shown(const char* text) { return shown(std::string(text)); }
template <typename T>
std::string shown(const T& number) {
  return std::to_string(number);
}

template <typename A, typename B>
bool checkIs(const A& actual, const B& expected, const char* words, const char* file, int line) {
  if (actual == expected) return true;
  if (failures++ < maxShown)
    std::fprintf(stderr, "%s:%d: %s is %s, not %s\n", file, line, words, shown(actual).c_str(), shown(expected).c_str());
  return false;
}

inline void run(const char* title, const std::function<void()>& test) {
  const int before = failures;
  const auto began = std::chrono::steady_clock::now();
  test();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
  std::printf("%s %s (%.1f s)\n", failures == before ? "ok" : "not ok", title, seconds.count());
  std::fflush(stdout);
}

inline int result() { return failures == 0 ? 0 : 1; }

}  // namespace inro::test
