#include "thread.h"

#include <signal.h>

#include <system_error>
#include <utility>

namespace inro {
namespace {

// Interrupts a thread that waits in read(2). Node uses none of the realtime signals.
int wakeSignal() { return SIGRTMIN + 7; }

void* run(void* work) {
  (*static_cast<std::function<void()>*>(work))();
  return nullptr;
}

}  // namespace

std::optional<Thread> Thread::start(std::function<void()> work, std::string& error) {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // not SIG_IGN, which would interrupt nothing; no SA_RESTART, which would hide it
  sigaction(wakeSignal(), &action, nullptr);
  // Signals for the process are JavaScript's business. A new thread has the mask of the one that starts it.
  sigset_t others;
  sigset_t before;
  sigfillset(&others);
  sigdelset(&others, wakeSignal());
  pthread_sigmask(SIG_SETMASK, &others, &before);
  auto kept = std::make_unique<std::function<void()>>(std::move(work));
  pthread_t thread;
  const int failed = pthread_create(&thread, nullptr, run, kept.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed != 0) {
    error = "no thread can be started: " + std::generic_category().message(failed);
    return std::nullopt;
  }
  return Thread(thread, std::move(kept));
}

Thread::~Thread() {
  if (work_) pthread_join(thread_, nullptr);
}

void Thread::interrupt() { pthread_kill(thread_, wakeSignal()); }

}  // namespace inro
