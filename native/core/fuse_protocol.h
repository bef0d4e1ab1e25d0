// The part of the kernel's FUSE protocol (Linux, include/uapi/linux/fuse.h, 7.23 to 7.45) that a read-only server speaks. Written
// out here because a host's own header is often older than its kernel. Numbers are in the machine's byte order.
#pragma once

#include <cstdint>

namespace inro::fuse {

constexpr std::uint32_t major = 7;
constexpr std::uint32_t newestMinor = 45;     // what this server knows of
constexpr std::uint32_t oldestMinor = 23;     // Linux 3.15: the reply to INIT has its present size
constexpr std::uint32_t resendMinor = 40;     // Linux 6.9: NOTIFY_RESEND
constexpr std::uint32_t epochMinor = 44;      // Linux 6.16: NOTIFY_INC_EPOCH

enum class Opcode : std::uint32_t {
  lookup = 1,
  forget = 2,
  getattr = 3,
  setattr = 4,
  readlink = 5,
  symlink = 6,
  mknod = 8,
  mkdir = 9,
  unlink = 10,
  rmdir = 11,
  rename = 12,
  link = 13,
  open = 14,
  read = 15,
  write = 16,
  statfs = 17,
  release = 18,
  fsync = 20,
  setxattr = 21,
  getxattr = 22,
  listxattr = 23,
  removexattr = 24,
  flush = 25,
  init = 26,
  opendir = 27,
  readdir = 28,
  releasedir = 29,
  fsyncdir = 30,
  getlk = 31,
  setlk = 32,
  setlkw = 33,
  access = 34,
  create = 35,
  interrupt = 36,
  bmap = 37,
  destroy = 38,
  ioctl = 39,
  poll = 40,
  notifyReply = 41,
  batchForget = 42,
  fallocate = 43,
  readdirplus = 44,
  rename2 = 45,
  lseek = 46,
  copyFileRange = 47,
  tmpfile = 51,
};

// Notifications: the code stands in OutHeader::error, unique is 0.
enum class Notice : std::int32_t { poll = 1, invalInode = 2, invalEntry = 3, store = 4, remove = 6, resend = 7, incEpoch = 8 };

// INIT flags.
constexpr std::uint64_t asyncDio = std::uint64_t{1} << 15;
constexpr std::uint64_t parallelDirops = std::uint64_t{1} << 18;
constexpr std::uint64_t initExt = std::uint64_t{1} << 30;
constexpr std::uint64_t directIoAllowMmap = std::uint64_t{1} << 36;
constexpr std::uint64_t hasResend = std::uint64_t{1} << 39;

// OPEN reply flags.
constexpr std::uint32_t fopenDirectIo = 1U << 0;
constexpr std::uint32_t fopenKeepCache = 1U << 1;
constexpr std::uint32_t fopenNoflush = 1U << 5;

// READ request: set by read(2) and its kin, not by what fills the page cache.
constexpr std::uint32_t readLockOwner = 1U << 1;

// POLL request: the caller is going to wait.
constexpr std::uint32_t pollScheduleNotify = 1U << 0;

struct InHeader {
  std::uint32_t len;
  std::uint32_t opcode;
  std::uint64_t unique;
  std::uint64_t nodeid;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t pid;
  std::uint16_t totalExtlen;
  std::uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

struct OutHeader {
  std::uint32_t len;
  std::int32_t error;
  std::uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

struct Attr {
  std::uint64_t ino;
  std::uint64_t size;
  std::uint64_t blocks;
  std::uint64_t atime;
  std::uint64_t mtime;
  std::uint64_t ctime;
  std::uint32_t atimensec;
  std::uint32_t mtimensec;
  std::uint32_t ctimensec;
  std::uint32_t mode;
  std::uint32_t nlink;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t rdev;
  std::uint32_t blksize;
  std::uint32_t flags;
};
static_assert(sizeof(Attr) == 88);

struct EntryOut {
  std::uint64_t nodeid;
  std::uint64_t generation;
  std::uint64_t entryValid;
  std::uint64_t attrValid;
  std::uint32_t entryValidNsec;
  std::uint32_t attrValidNsec;
  Attr attr;
};
static_assert(sizeof(EntryOut) == 128);

struct AttrOut {
  std::uint64_t attrValid;
  std::uint32_t attrValidNsec;
  std::uint32_t dummy;
  Attr attr;
};
static_assert(sizeof(AttrOut) == 104);

struct InitIn {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t maxReadahead;
  std::uint32_t flags;
  std::uint32_t flags2;  // from 7.36
  std::uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);
constexpr std::uint32_t initInOldBytes = 16;

struct InitOut {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t maxReadahead;
  std::uint32_t flags;
  std::uint16_t maxBackground;
  std::uint16_t congestionThreshold;
  std::uint32_t maxWrite;
  std::uint32_t timeGran;
  std::uint16_t maxPages;
  std::uint16_t mapAlignment;
  std::uint32_t flags2;
  std::uint32_t maxStackDepth;
  std::uint16_t requestTimeout;
  std::uint16_t unused[11];
};
static_assert(sizeof(InitOut) == 64);

struct OpenIn {
  std::uint32_t flags;
  std::uint32_t openFlags;
};
static_assert(sizeof(OpenIn) == 8);

struct OpenOut {
  std::uint64_t fh;
  std::uint32_t openFlags;
  std::int32_t backingId;
};
static_assert(sizeof(OpenOut) == 16);

struct ReadIn {
  std::uint64_t fh;
  std::uint64_t offset;
  std::uint32_t size;
  std::uint32_t readFlags;
  std::uint64_t lockOwner;
  std::uint32_t flags;
  std::uint32_t padding;
};
static_assert(sizeof(ReadIn) == 40);

struct ReleaseIn {
  std::uint64_t fh;
  std::uint32_t flags;
  std::uint32_t releaseFlags;
  std::uint64_t lockOwner;
};
static_assert(sizeof(ReleaseIn) == 24);

struct PollIn {
  std::uint64_t fh;
  std::uint64_t kh;
  std::uint32_t flags;
  std::uint32_t events;
};
static_assert(sizeof(PollIn) == 24);

struct PollOut {
  std::uint32_t revents;
  std::uint32_t padding;
};
static_assert(sizeof(PollOut) == 8);

struct Kstatfs {
  std::uint64_t blocks;
  std::uint64_t bfree;
  std::uint64_t bavail;
  std::uint64_t files;
  std::uint64_t ffree;
  std::uint32_t bsize;
  std::uint32_t namelen;
  std::uint32_t frsize;
  std::uint32_t padding;
  std::uint32_t spare[6];
};
static_assert(sizeof(Kstatfs) == 80);

// Followed by the name, then zeros up to a multiple of 8.
struct Dirent {
  std::uint64_t ino;
  std::uint64_t off;
  std::uint32_t namelen;
  std::uint32_t type;
};
static_assert(sizeof(Dirent) == 24);

struct NotifyPollOut {
  std::uint64_t kh;
};

struct NotifyInvalInodeOut {
  std::uint64_t ino;
  std::int64_t off;
  std::int64_t len;
};

// Followed by the name and a NUL that namelen does not count.
struct NotifyInvalEntryOut {
  std::uint64_t parent;
  std::uint32_t namelen;
  std::uint32_t flags;
};

// The same.
struct NotifyDeleteOut {
  std::uint64_t parent;
  std::uint64_t child;
  std::uint32_t namelen;
  std::uint32_t padding;
};

// Followed by the bytes.
struct NotifyStoreOut {
  std::uint64_t nodeid;
  std::uint64_t offset;
  std::uint32_t size;
  std::uint32_t padding;
};

}  // namespace inro::fuse
