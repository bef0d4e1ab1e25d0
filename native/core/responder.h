// One request in, one reply out: what the mount answers, without threads or descriptors. The caller holds the core's lock shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "caller.h"
#include "core.h"
#include "fuse_protocol.h"
#include "gate.h"

namespace inro {

constexpr std::size_t maxReadBytes = 128 * 1024;  // max_read of the mount
constexpr std::size_t requestBytes = 64 * 1024;   // the kernel wants at least 8 KiB (FUSE_MIN_READ_BUFFER)
constexpr std::size_t replyBytes = sizeof(fuse::OutHeader) + maxReadBytes;
constexpr std::uint32_t maxWriteBytes = 4096;  // nothing is ever written

struct Negotiated {
  std::uint32_t minor = 0;  // 0: no INIT yet
  std::uint64_t flags = 0;
};

class Responder {
 public:
  // `newestMinor` and `oldestMinor` are fuse_protocol.h's, but for tests.
  Responder(Core& core, CallerSource& callers, std::uint32_t newestMinor = fuse::newestMinor)
      : core_(core), callers_(callers), gate_(callers, core.accessBook()), newestMinor_(newestMinor) {}

  // Writes the reply into `out` (replyBytes) and returns its length; 0 when the request gets none.
  std::size_t answer(std::span<const std::byte> request, std::span<std::byte> out);

  Negotiated negotiated() const;
  // Refused by words when the kernel's INIT could not be agreed with; empty otherwise.
  std::string refusal() const;

 private:
  struct Request;
  struct Reply;

  void dispatch(const Request& request, Reply& reply);
  void init(const Request& request, Reply& reply);
  void lookup(const Request& request, Reply& reply);
  void getattr(const Request& request, Reply& reply);
  void readlink(const Request& request, Reply& reply);
  void open(const Request& request, Reply& reply);
  void read(const Request& request, Reply& reply);
  void release(const Request& request);
  void opendir(const Request& request, Reply& reply);
  void readdir(const Request& request, Reply& reply);
  void poll(const Request& request, Reply& reply);
  void statfs(Reply& reply);

  fuse::Attr attributes(const NodeRecord& node) const;
  void account(const Request& request, const NodeRecord& node, AccessOutcome outcome);
  void refuse(const Request& request, const NodeRecord& node, AccessOutcome outcome, Reply& reply);
  std::uint64_t validSeconds() const;

  Core& core_;
  CallerSource& callers_;
  Gate gate_;
  std::uint32_t newestMinor_;
  mutable std::mutex pollLock_;
  mutable std::mutex refusalLock_;
  std::string refusal_;
};

}  // namespace inro
