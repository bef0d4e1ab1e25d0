// A thread whose start can fail without an exception (this code is compiled without them), and that takes no signals but one.
#pragma once

#include <pthread.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace inro {

class Thread {
 public:
  // Nothing when there can be no more threads, as in a cgroup that is full; then `error` says so.
  static std::optional<Thread> start(std::function<void()> work, std::string& error);

  Thread(Thread&& other) noexcept : thread_(other.thread_), work_(std::move(other.work_)) {}
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  Thread& operator=(Thread&&) = delete;
  // Waits for its end.
  ~Thread();

  // Ends what it waits for in the kernel, with EINTR.
  void interrupt();

 private:
  Thread(pthread_t thread, std::unique_ptr<std::function<void()>> work) : thread_(thread), work_(std::move(work)) {}

  pthread_t thread_;
  std::unique_ptr<std::function<void()>> work_;  // empty: moved from
};

}  // namespace inro
