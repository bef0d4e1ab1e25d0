// Tells the kernel what changed. What cannot block is said by whoever made the change. What can block (it waits for locks that a
// reader may hold) is said by a thread of its own, and first, if that is a matter of milliseconds: said by a thread that answers requests, it could wait for a
// reader that waits for that very thread, and not even SIGKILL would end that.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>

#include "channel.h"
#include "nodes.h"
#include "thread.h"

namespace inro {

class Notifier {
 public:
  struct Facts {
    std::uint64_t droppedNames = 0;  // not told to inotify because too many waited
    std::uint64_t pendingScrubs = 0;
    std::uint64_t lateScrubs = 0;  // not done within the time that a wipe waits for them
  };

  // `scrubMs`: how long tell() waits for the kernel to let go of mapped pages. Nothing when the thread cannot be had; then `error`
  // says so.
  static std::unique_ptr<Notifier> start(Channel& channel, bool canEpoch, std::uint64_t scrubMs, std::string& error);
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;
  // Waits for what is being said now and for the scrubs behind it; drops names. What it waits for may need an answer to a reader,
  // so the threads that answer end after it.
  ~Notifier();

  // When it returns, no name is believed that is not true any more.
  // True when the kernel has no page of what was mapped any more, now or before; false after `scrubMs`, while that is still tried.
  bool tell(const Told& told);
  Facts facts();

 private:
  struct Gone {
    Told::Name name;
  };
  struct Scrub {
    Told::Mapped mapped;
  };
  using Job = std::variant<Gone, Scrub>;

  Notifier(Channel& channel, bool canEpoch, std::uint64_t scrubMs) : channel_(channel), canEpoch_(canEpoch), scrubMs_(scrubMs) {}

  void run();
  bool isDone() const;
  void say(const Job& job);
  void forgetAll();
  void sayGone(const Told::Name& name);
  void sayScrub(const Told::Mapped& mapped);
  void invalidate(std::uint64_t node, std::int64_t offset);

  Channel& channel_;
  const bool canEpoch_;
  const std::uint64_t scrubMs_;
  std::mutex lock_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::deque<Job> jobs_;  // scrubs first
  Facts facts_;
  std::size_t waitingNames_ = 0;
  bool stopping_ = false;
  std::optional<Thread> thread_;
};

}  // namespace inro
