// Tells the kernel what changed. What cannot block is said at once, by whoever made the change. What can block (it waits for
// locks that a reader may hold) is said by a thread of its own: said by a thread that answers requests, it could wait for a
// reader that waits for that very thread, and not even SIGKILL would end that.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <variant>

#include "channel.h"
#include "nodes.h"

namespace inro {

class Notifier {
 public:
  struct Facts {
    std::uint64_t droppedNames = 0;  // not told to inotify because too many waited
    std::uint64_t pendingScrubs = 0;
    std::uint64_t lateScrubs = 0;  // not done within the time that a wipe waits for them
  };

  Notifier(Channel& channel, bool canEpoch);
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;
  // Waits for what is being said now; drops the rest.
  ~Notifier();

  // Returns when the kernel has no page of what was mapped any more: true; or after `scrubMs`, while it is still being tried: false.
  bool tell(const Told& told);
  Facts facts();

 private:
  struct Gone {
    Told::Name name;
  };
  struct Scrub {
    Told::Mapped mapped;
    std::uint64_t ticket;
  };
  using Job = std::variant<Gone, Scrub>;

  void run();
  void say(const Job& job);
  void sayGone(const Told::Name& name);
  void sayScrub(const Told::Mapped& mapped);
  void invalidate(std::uint64_t node, std::int64_t offset);

  Channel& channel_;
  const bool canEpoch_;
  std::mutex lock_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::deque<Job> jobs_;
  std::uint64_t lastTicket_ = 0;
  std::uint64_t doneTicket_ = 0;
  Facts facts_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace inro
