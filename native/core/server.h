// Serves a core's nodes through a channel: threads that answer, and one that notifies. No thread here ever enters JavaScript.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "caller.h"
#include "channel.h"
#include "core.h"
#include "locked_mapping.h"
#include "notifier.h"
#include "responder.h"
#include "thread.h"

namespace inro {

class Server {
 public:
  struct Facts {
    Negotiated negotiated;
    std::uint64_t requests = 0;
    std::uint64_t malformed = 0;  // requests too short to be answered
    Notifier::Facts notifier;
    bool buffersLocked = false;  // replies pass through locked memory alone
    bool connected = false;  // the kernel still asks
    std::string ended;       // why it does not; empty while it does, and after a plain unmount
  };

  static constexpr std::uint64_t defaultScrubMs = 5'000;
  // Starts to answer at once. Nothing when a buffer or thread cannot be had; then `error` says so. `newestMinor` and `scrubMs` (how
  // long a wipe waits for the kernel to let go of mapped pages) are other than the usual ones only in tests.
  static std::unique_ptr<Server> start(Core& core, std::unique_ptr<Channel> channel, std::size_t workers,
                                       std::uint32_t newestMinor, std::string& error,
                                       std::uint64_t scrubMs = defaultScrubMs);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  // Ends the threads, then closes the channel. May wait until the kernel has let go of mapped pages.
  ~Server();

  // Waits for the kernel's INIT. False when it was refused, the channel ended, or time ran out; then `error` says so.
  bool waitReady(std::uint64_t ms, std::string& error);
  Facts facts();
  // After start() on a connection that another process served: requests that it took and did not answer come again, and all who
  // wait in poll(2) look again, because the kernel repeats neither by itself. False when the kernel cannot (before Linux 6.9).
  bool takeOver(std::string& error);

 private:
  Server(Core& core, std::unique_ptr<Channel> channel, std::uint32_t newestMinor, std::uint64_t scrubMs);

  void work(LockedMapping& buffer);
  void reply(std::span<const std::byte> request, std::span<const std::byte> reply);
  void workerEnds();
  void ready();
  void end(const std::string& why);

  Core& core_;
  std::unique_ptr<Channel> channel_;
  KernelCallers callers_;
  Responder responder_;
  const std::uint64_t scrubMs_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::unique_ptr<Notifier> notifier_;
  bool ended_ = false;
  bool closing_ = false;
  std::string why_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::size_t> running_{0};
  std::atomic<std::uint64_t> requests_{0};
  std::atomic<std::uint64_t> malformed_{0};
  std::vector<LockedMapping> buffers_;
  std::vector<Thread> workers_;
};

}  // namespace inro
