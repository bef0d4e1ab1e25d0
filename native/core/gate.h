// Whether a caller passes a gate: by its cgroup, or because that is below one which passes. What was found out is kept until a
// gate changes; a cgroup's id is never used twice, and it never moves.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "access_book.h"
#include "caller.h"
#include "nodes.h"

namespace inro {

class Gate {
 public:
  Gate(CallerSource& callers, AccessBook& book) : callers_(callers), book_(book) {}

  // `directory` is a file's `gated`. The caller holds the core's lock shared, and the request of `thread` is unanswered.
  bool passes(const Nodes& nodes, std::uint64_t directory, std::uint32_t thread);

 private:
  static constexpr std::size_t maxKnown = 4096;

  bool isBelow(const GateBlock& gate, std::uint64_t cgroup, std::uint32_t thread);

  CallerSource& callers_;
  AccessBook& book_;
  std::mutex lock_;
  std::uint64_t epoch_ = 0;
  struct Key {
    std::uint64_t directory;
    std::uint64_t cgroup;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const { return key.directory * 0x9e3779b97f4a7c15ULL ^ key.cgroup; }
  };
  std::unordered_map<Key, bool, Hash> known_;
};

}  // namespace inro
