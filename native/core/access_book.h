// Who accessed what: each access in a ring, and how often in a table that loses nothing when the ring is full. Both lie in the
// image, so that what a killed process has not told its successor tells.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "caller.h"
#include "image.h"

namespace inro {

// As JavaScript names them, in this order (src/system/addon.ts).
enum class AccessOutcome : std::uint32_t {
  opened = 0,
  notAttached = 1,   // the caller is none of those whom the gate lets pass
  leaseOver = 2,
  wiped = 3,         // the value is gone: revoked, removed, or its grace is over
  wouldBeCached = 4,  // mmap, splice or sendfile of a file that must not be in the page cache
};

struct Access {
  std::uint64_t node;
  AccessOutcome outcome;
  std::uint32_t uid;
  std::uint32_t gid;
  Caller caller;
};

struct CollectedAccess : Access {
  std::uint64_t atMs;
};

struct CollectedCount {
  std::uint64_t node;
  std::uint64_t cgroup;  // 0: unknown, or of many
  std::uint32_t uid;     // notAttributed: of many
  AccessOutcome outcome;
  std::uint64_t count;
  std::uint64_t lastMs;  // since 1970; 0: not kept
};
constexpr std::uint32_t notAttributed = UINT32_MAX;

struct Collected {
  std::vector<CollectedAccess> accesses;
  std::vector<CollectedCount> counts;
  std::uint64_t dropped = 0;  // accesses of which only the count is known
  std::unordered_map<std::uint64_t, std::string> cgroups;  // paths of those above, where known
};

class AccessBook {
 public:
  explicit AccessBook(Image image) : image_(image) {}

  // Callers hold the core's lock shared, and `node` is in the image.
  void record(const Access& access, std::uint64_t nowMs);
  bool knowsCgroup(std::uint64_t cgroup);
  void nameCgroup(std::uint64_t cgroup, std::string path);
  std::string cgroupPath(std::uint64_t cgroup);
  // Takes what has been recorded since the last time. The caller holds the core's lock alone.
  Collected collect();
  bool hasNews() const;

 private:
  static constexpr std::size_t maxCgroups = 4096;

  void count(const Access& access, std::uint64_t nowMs);
  void append(const Access& access, std::uint64_t nowMs);

  Image image_;
  std::mutex lock_;
  bool hasUnattributed_ = true;  // a predecessor's, perhaps
  std::unordered_map<std::uint64_t, std::string> cgroups_;
};

}  // namespace inro
