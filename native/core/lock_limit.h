// How much memory this process may lock: RLIMIT_MEMLOCK, which memfd_secret(2) and mlock(2) count against alike.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inro {

constexpr std::uint64_t noLockLimit = UINT64_MAX;

struct LockRoom {
  std::size_t bytes;         // of those wanted, in whole pages
  std::uint64_t limitBytes;  // RLIMIT_MEMLOCK as it is now; it says nothing to a process with CAP_IPC_LOCK
};

// How many of `wanted` bytes may be locked beside what is locked already; found out by trying. Raises the soft limit to the hard
// one where the soft one is in the way.
LockRoom lockRoom(std::size_t wanted);

}  // namespace inro
