#include "caller.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace inro {
namespace {

// <linux/pidfd.h>, which older systems have without these.
constexpr unsigned pidfdThread = O_EXCL;
constexpr std::uint64_t infoPid = 1;
constexpr std::uint64_t infoCgroup = 4;
struct PidfdInfo {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::uint32_t pid;
  std::uint32_t process;
  std::uint32_t parent;
  std::uint32_t ids[8];
  std::int32_t exitCode;
};
static_assert(sizeof(PidfdInfo) == 64);  // PIDFD_INFO_SIZE_VER0
constexpr unsigned long getInfo = _IOWR(0xFF, 11, PidfdInfo);

constexpr std::size_t maxStatBytes = 1024;
constexpr std::size_t maxCgroupBytes = 16 * 1024;
constexpr std::size_t maxMountsBytes = 1024 * 1024;

std::uint64_t numberIn(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Field 22 of a stat line, whose second field may hold anything, also `)`.
std::uint64_t startIn(std::string_view stat) {
  std::size_t at = stat.rfind(')');
  if (at == stat.npos) return 0;
  stat.remove_prefix(at + 1);
  for (int field = 2; field < 22; field++) {
    at = stat.find(' ');
    if (at == stat.npos) return 0;
    stat.remove_prefix(at + 1);
  }
  return numberIn(stat);
}

// The line `0::PATH` of a cgroup file.
std::string unifiedIn(std::string_view cgroups) {
  for (std::size_t from = 0; from < cgroups.size();) {
    const std::size_t end = std::min(cgroups.find('\n', from), cgroups.size());
    const std::string_view line = cgroups.substr(from, end - from);
    if (line.starts_with("0::")) return std::string(line.substr(3));
    from = end + 1;
  }
  return {};
}

std::uint64_t processIn(std::string_view status) {
  constexpr std::string_view key = "\nTgid:\t";
  const std::size_t at = status.find(key);
  return at == status.npos ? 0 : numberIn(status.substr(at + key.size()));
}

// From mountinfo: `36 35 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`. Paths with spaces stand escaped; none is expected here.
std::string unifiedMount(std::string_view mounts) {
  for (std::size_t from = 0; from < mounts.size();) {
    const std::size_t end = std::min(mounts.find('\n', from), mounts.size());
    std::string_view line = mounts.substr(from, end - from);
    from = end + 1;
    if (line.find(" - cgroup2 ") == line.npos) continue;
    for (int field = 0; field < 4; field++) {
      const std::size_t at = line.find(' ');
      if (at == line.npos) break;
      line.remove_prefix(at + 1);
    }
    return std::string(line.substr(0, line.find(' ')));
  }
  return {};
}

void setName(Caller& caller, std::string_view name) {
  if (!name.empty() && name.back() == '\n') name.remove_suffix(1);
  std::memcpy(caller.name, name.data(), std::min(name.size(), sizeof caller.name - 1));
}

}  // namespace

KernelCallers::KernelCallers() : proc_(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  unified_ = unifiedMount(read("self/mountinfo", maxMountsBytes));
}

KernelCallers::~KernelCallers() {
  for (Kept& kept : kept_) drop(kept);
  if (proc_ >= 0) close(proc_);
}

void KernelCallers::drop(Kept& kept) {
  if (kept.pidfd >= 0) close(kept.pidfd);
  if (kept.comm >= 0) close(kept.comm);
  kept = Kept{};
}

std::string KernelCallers::read(const std::string& path, std::size_t maxBytes) {
  std::string text;
  const int fd = openat(proc_, path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  while (text.size() < maxBytes) {
    const std::size_t before = text.size();
    text.resize(std::min(maxBytes, before + 4096));
    const ssize_t got = ::read(fd, text.data() + before, text.size() - before);
    text.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got <= 0) break;
  }
  close(fd);
  return text;
}

KernelCallers::Kept* KernelCallers::find(std::uint32_t thread, std::uint64_t& cgroup) {
  if (!pidfdsTell_ || thread == 0) return nullptr;
  PidfdInfo info{};
  const auto ask = [&](int pidfd) {
    info = PidfdInfo{};
    info.mask = infoPid | infoCgroup;
    return ioctl(pidfd, getInfo, &info) == 0 && (info.mask & infoCgroup) != 0 && info.pid == thread;
  };
  Kept* oldest = nullptr;
  for (Kept& kept : kept_) {
    if (oldest == nullptr || kept.lastUse < oldest->lastUse) oldest = &kept;
    if (kept.thread != thread) continue;
    if (ask(kept.pidfd)) {
      kept.lastUse = ++uses_;
      cgroup = info.cgroup;
      return &kept;
    }
    drop(kept);  // that thread has ended; another one has its number
    oldest = &kept;
    break;
  }
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, thread, pidfdThread));
  if (pidfd < 0 || !ask(pidfd)) {
    // The kernel knows no threads here (before 6.9: EINVAL) or tells nothing of them (before 6.13: ENOTTY).
    if (errno == EINVAL || errno == ENOTTY || errno == ENOSYS) pidfdsTell_ = false;
    if (pidfd >= 0) close(pidfd);
    return nullptr;
  }
  if (kept_.size() < maxKept) {
    kept_.emplace_back();
    oldest = &kept_.back();
  } else {
    drop(*oldest);
  }
  oldest->thread = thread;
  oldest->process = info.process;
  oldest->pidfd = pidfd;
  oldest->lastUse = ++uses_;
  cgroup = info.cgroup;
  return oldest;
}

// What is the same for the whole life of the process is read once.
void KernelCallers::complete(Kept& kept) {
  if (kept.comm >= 0) return;
  const std::string process = std::to_string(kept.process);
  kept.startTicks = startIn(read(process + "/stat", maxStatBytes));
  kept.comm = openat(proc_, (process + "/comm").c_str(), O_RDONLY | O_CLOEXEC);
}

std::uint64_t KernelCallers::cgroupOf(std::uint32_t thread) {
  {
    const std::scoped_lock guard(lock_);
    std::uint64_t cgroup = 0;
    if (find(thread, cgroup) != nullptr) return cgroup;
  }
  return thread == 0 ? 0 : cgroupAt(cgroupPath(thread));
}

Caller KernelCallers::identify(std::uint32_t thread) {
  if (thread == 0) return {};
  {
    const std::scoped_lock guard(lock_);
    Caller caller;
    if (Kept* const kept = find(thread, caller.cgroup)) {
      complete(*kept);
      caller.thread = thread;
      caller.process = kept->process;
      caller.startTicks = kept->startTicks;
      char name[sizeof caller.name + 1];
      const ssize_t got = pread(kept->comm, name, sizeof name, 0);
      if (got > 0) setName(caller, {name, static_cast<std::size_t>(got)});
      return caller;
    }
  }
  return fromProc(thread);
}

Caller KernelCallers::fromProc(std::uint32_t thread) {
  Caller caller;
  caller.thread = thread;
  caller.process = static_cast<std::uint32_t>(processIn(read(std::to_string(thread) + "/status", maxStatBytes)));
  caller.cgroup = cgroupAt(cgroupPath(thread));
  if (caller.process == 0) return caller;
  const std::string process = std::to_string(caller.process);
  caller.startTicks = startIn(read(process + "/stat", maxStatBytes));
  setName(caller, read(process + "/comm", sizeof caller.name));
  return caller;
}

std::string KernelCallers::cgroupPath(std::uint32_t thread) {
  return thread == 0 ? std::string() : unifiedIn(read(std::to_string(thread) + "/cgroup", maxCgroupBytes));
}

std::uint64_t KernelCallers::cgroupAt(const std::string& path) {
  if (unified_.empty() || path.empty() || path.front() != '/') return 0;
  struct stat found {};
  // Its inode is its id, on machines of 64 bits.
  return stat((unified_ + path).c_str(), &found) == 0 && S_ISDIR(found.st_mode) ? found.st_ino : 0;
}

bool KernelCallers::isProtected(const std::string& path) {
  const std::size_t end = path.rfind('/');
  if (unified_.empty() || end == path.npos) return false;
  struct stat parent {};
  if (stat((unified_ + path.substr(0, end)).c_str(), &parent) != 0) return false;
  return (parent.st_uid == 0 || parent.st_uid == geteuid()) && (parent.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int signalProcess(std::uint32_t process, std::uint64_t startTicks, int signal) {
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (pidfd < 0) return errno;
  // From here on the id is this process's, or it has ended.
  char text[maxStatBytes];
  const int stat = open(("/proc/" + std::to_string(process) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  const ssize_t got = stat < 0 ? -1 : ::read(stat, text, sizeof text);
  if (stat >= 0) close(stat);
  const bool isIt = got > 0 && startIn({text, static_cast<std::size_t>(got)}) == startTicks;
  int error = isIt ? 0 : ESRCH;
  if (isIt && syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) != 0) error = errno;
  close(pidfd);
  return error;
}

}  // namespace inro
