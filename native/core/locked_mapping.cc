#include "locked_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447  // one number on all architectures (Linux 5.14)
#endif

namespace inro {
namespace {

constexpr long secretMemoryMagic = 0x5345434d;  // SECRETMEM_MAGIC of linux/magic.h

std::size_t wholePages(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

std::string inWords(const char* call, int error) {
  return std::string(call) + ": " + std::generic_category().message(error);
}

// The limit is what an operator can change, so a refusal to lock names it.
std::string lockRefusal(const char* call, int error) {
  std::string words = inWords(call, error);
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    words += " (RLIMIT_MEMLOCK is " + std::to_string(limit.rlim_cur) + " bytes)";
  }
  return words;
}

// Locks pages as they are touched, not all at once: a large arena that is mostly empty costs nothing.
bool lockOnFault(std::span<std::byte> bytes) {
  if (mlock2(bytes.data(), bytes.size(), MLOCK_ONFAULT) == 0) return true;
  if (errno != ENOSYS && errno != EINVAL) return false;
  return mlock(bytes.data(), bytes.size()) == 0;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace

std::optional<LockedMapping> LockedMapping::map(std::size_t bytes, bool allowSecret, std::string& error, bool keepDescriptor) {
  const std::size_t size = wholePages(bytes);
  std::string whyNotSecret = "asked for mlock";
  if (allowSecret) {
    auto secret = mapSecret(size, whyNotSecret, keepDescriptor);
    if (secret) return secret;
  }
  auto anonymous = mapAnonymous(size, error);
  if (!anonymous) return std::nullopt;
  anonymous->note_ = anonymous->note_.empty() ? whyNotSecret : whyNotSecret + "; " + anonymous->note_;
  return anonymous;
}

std::optional<LockedMapping> LockedMapping::mapSecret(std::size_t bytes, std::string& error, bool keepDescriptor) {
  // Closed when this returns, if no successor is to have it: pidfd_getfd and mmap read the plaintext through an open descriptor.
  Descriptor fd(static_cast<int>(syscall(SYS_memfd_secret, O_CLOEXEC)));
  if (fd.get() < 0) {
    error = inWords("memfd_secret", errno);
    return std::nullopt;
  }
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    error = inWords("memfd_secret: ftruncate", errno);
    return std::nullopt;
  }
  auto mapping = mapDescriptor(fd.get(), bytes, error);
  if (mapping && keepDescriptor) mapping->fd_ = fd.release();
  return mapping;
}

std::optional<LockedMapping> LockedMapping::adopt(int fd, std::size_t minBytes, std::size_t maxBytes, std::string& error) {
  Descriptor taken(fd);
  struct statfs system {};
  struct stat found {};
  if (fstatfs(fd, &system) != 0 || fstat(fd, &found) != 0) {
    error = inWords("the descriptor of the arena", errno);
    return std::nullopt;
  }
  const auto bytes = static_cast<std::size_t>(found.st_size);
  if (system.f_type != secretMemoryMagic || bytes < minBytes || bytes > maxBytes || bytes != wholePages(bytes)) {
    error = "the descriptor of the arena is not one of inro's: no memfd_secret, or of an impossible size";
    return std::nullopt;
  }
  auto mapping = mapDescriptor(fd, bytes, error);
  if (mapping) mapping->fd_ = taken.release();
  return mapping;
}

std::optional<LockedMapping> LockedMapping::mapDescriptor(int fd, std::size_t bytes, std::string& error) {
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (start == MAP_FAILED) {
    error = lockRefusal("memfd_secret: mmap", errno);
    return std::nullopt;
  }
  LockedMapping mapping({static_cast<std::byte*>(start), bytes}, MappingKind::memfdSecret);
  // A forked child would see the plaintext; MADV_WIPEONFORK is refused here (EINVAL), DONTFORK is not.
  if (madvise(start, bytes, MADV_DONTFORK) != 0) {
    error = inWords("memfd_secret: MADV_DONTFORK", errno);
    return std::nullopt;
  }
  return mapping;
}

std::optional<LockedMapping> LockedMapping::mapAnonymous(std::size_t bytes, std::string& error) {
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) {
    error = inWords("mmap", errno);
    return std::nullopt;
  }
  LockedMapping mapping({static_cast<std::byte*>(start), bytes}, MappingKind::mlock);
  if (madvise(start, bytes, MADV_DONTDUMP) != 0 || madvise(start, bytes, MADV_DONTFORK) != 0) {
    error = inWords("madvise", errno);
    return std::nullopt;
  }
  // Collapsing small pages into a huge one copies them and frees the old ones unzeroed. A kernel without huge pages says EINVAL.
  madvise(start, bytes, MADV_NOHUGEPAGE);
  if (!lockOnFault(mapping.bytes_)) {
    mapping.locked_ = false;
    mapping.note_ = "not locked: " + lockRefusal("mlock", errno);
  }
  return mapping;
}

LockedMapping LockedMapping::borrow(std::span<std::byte> bytes) {
  LockedMapping mapping(bytes, MappingKind::mlock);
  mapping.owned_ = false;
  mapping.locked_ = false;
  mapping.note_ = "borrowed";
  return mapping;
}

LockedMapping::LockedMapping(LockedMapping&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      kind_(other.kind_),
      locked_(other.locked_),
      owned_(other.owned_),
      fd_(std::exchange(other.fd_, -1)),
      note_(std::move(other.note_)) {}

LockedMapping::~LockedMapping() {
  if (owned_ && !bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  if (fd_ >= 0) close(fd_);
}

}  // namespace inro
