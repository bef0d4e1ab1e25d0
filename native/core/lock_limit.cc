#include "lock_limit.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

namespace inro {
namespace {

// Locks nothing that is there: the pages are never touched.
bool mayLock(void* start, std::size_t bytes) {
  if (mlock2(start, bytes, MLOCK_ONFAULT) != 0) return false;
  munlock(start, bytes);
  return true;
}

// The most pages that may be locked, from none to `pages`.
std::size_t lockablePages(void* start, std::size_t pages, std::size_t pageBytes) {
  std::size_t possible = 0;
  std::size_t most = pages;
  while (possible < most) {
    const std::size_t tried = most - (most - possible) / 2;
    if (mayLock(start, tried * pageBytes)) possible = tried;
    else most = tried - 1;
  }
  return possible;
}

}  // namespace

LockRoom lockRoom(std::size_t wanted) {
  const auto pageBytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t pages = (wanted + pageBytes - 1) / pageBytes;
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const auto room = [&limit](std::size_t bytes) {
    return LockRoom{bytes, limit.rlim_cur == RLIM_INFINITY ? noLockLimit : limit.rlim_cur};
  };
  void* const start = mmap(nullptr, pages * pageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return room(0);
  std::size_t possible = lockablePages(start, pages, pageBytes);
  if (possible < pages && limit.rlim_cur < limit.rlim_max) {
    const rlimit raised{limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_MEMLOCK, &raised) == 0) {
      limit = raised;
      possible = lockablePages(start, pages, pageBytes);
    }
  }
  munmap(start, pages * pageBytes);
  return room(possible * pageBytes);
}

}  // namespace inro
