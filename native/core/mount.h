// Mounts, and proves on the mount what the kernel does with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace inro {

// The descriptor of a new mount's /dev/fuse, or -1 with an errno and what was tried.
struct Mounted {
  int fd = -1;
  int error = 0;
  std::string step;  // "open /dev/fuse", "mount", "fusermount3"
  std::string said;  // by fusermount3 on its standard error
};

// mount(2), for root (CAP_SYS_ADMIN). Read-only, nosuid, nodev, noexec; for all users, by the mode bits.
Mounted mountDirectly(const std::string& path);
// fusermount3(1), for everybody else. For other users only where /etc/fuse.conf says user_allow_other.
Mounted mountByHelper(const std::string& path, bool allowOther);

// Reads the file at `path` in every way that could leave its bytes in the page cache. Empty when read(2) gives `content` and all
// the others are refused and leave nothing; otherwise what happened. Blocks: the mount must be served by other threads.
std::string strictSelfTest(const std::string& path, std::span<const std::byte> content);

}  // namespace inro
