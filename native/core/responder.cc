#include "responder.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace inro {

using fuse::Opcode;

namespace {

// How long the kernel may keep names and attributes. With NOTIFY_INC_EPOCH every change is told at once; without it, a name that
// the kernel would not let go of heals after a second.
constexpr std::uint64_t validWithEpoch = 60;
constexpr std::uint64_t validWithoutEpoch = 1;
constexpr std::uint32_t blockBytes = 4096;
constexpr std::uint64_t statBlockBytes = 512;

std::uint32_t direntType(const NodeRecord& node) { return (node.mode & S_IFMT) >> 12; }

// A newer version has replaced it, and the time to read on has passed.
bool isOver(const NodeRecord& node) {
  return (node.flags & nodeSuperseded) != 0 && boottimeMs() >= node.readableUntilMs;
}

// What stat(2) shows. Never used twice, as ids are not, but small.
std::uint64_t inodeNumber(std::uint64_t id) { return id == rootNode ? 1 : id >> slotBits; }

}  // namespace

struct Responder::Request {
  fuse::InHeader header;
  std::span<const std::byte> body;

  // The fixed part of the body; nothing when it is shorter than that.
  template <typename T>
  std::optional<T> as() const {
    if (body.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, body.data(), sizeof value);
    return value;
  }
  // A name that ends the body.
  std::optional<std::string_view> name() const {
    const std::string_view text(reinterpret_cast<const char*>(body.data()), body.size());
    const auto end = text.find('\0');
    if (end == 0 || end == text.npos) return std::nullopt;
    return text.substr(0, end);
  }
};

struct Responder::Reply {
  std::span<std::byte> room;  // behind the header
  std::size_t length = 0;
  int error = 0;
  bool none = false;

  void fail(int errorNumber) { error = errorNumber; }
  template <typename T>
  void put(const T& value) {
    std::memcpy(room.data() + length, &value, sizeof value);
    length += sizeof value;
  }
};

std::size_t Responder::answer(std::span<const std::byte> bytes, std::span<std::byte> out) {
  if (bytes.size() < sizeof(fuse::InHeader)) return 0;  // whose request it was cannot be told
  Request request{};
  std::memcpy(&request.header, bytes.data(), sizeof request.header);
  request.body = bytes.subspan(sizeof request.header);
  Reply reply{out.subspan(sizeof(fuse::OutHeader))};
  // Forgets have no reply, whatever their bytes are; nothing counts on them, because no id is used twice.
  const auto opcode = static_cast<Opcode>(request.header.opcode);
  if (opcode == Opcode::forget || opcode == Opcode::batchForget || opcode == Opcode::notifyReply) return 0;
  if (request.header.len != bytes.size()) {
    reply.fail(EIO);
  } else {
    dispatch(request, reply);
  }
  if (reply.none) return 0;
  const std::size_t length = sizeof(fuse::OutHeader) + (reply.error == 0 ? reply.length : 0);
  const fuse::OutHeader header{static_cast<std::uint32_t>(length), -reply.error, request.header.unique};
  std::memcpy(out.data(), &header, sizeof header);
  return length;
}

void Responder::dispatch(const Request& request, Reply& reply) {
  const auto opcode = static_cast<Opcode>(request.header.opcode);
  if (opcode == Opcode::init) return init(request, reply);
  if (negotiated().minor == 0) return reply.fail(EIO);
  switch (opcode) {
    case Opcode::lookup: return lookup(request, reply);
    case Opcode::getattr: return getattr(request, reply);
    case Opcode::readlink: return readlink(request, reply);
    case Opcode::open: return open(request, reply);
    case Opcode::read: return read(request, reply);
    case Opcode::release: return release(request);
    case Opcode::opendir: return opendir(request, reply);
    case Opcode::readdir: return readdir(request, reply);
    case Opcode::poll: return poll(request, reply);
    case Opcode::statfs: return statfs(reply);
    // Nothing to do for these; success.
    case Opcode::releasedir:
    case Opcode::destroy: return;
    // The kernel refuses them itself on a read-only mount; these hold if root remounts it.
    case Opcode::setattr:
    case Opcode::symlink:
    case Opcode::mknod:
    case Opcode::mkdir:
    case Opcode::unlink:
    case Opcode::rmdir:
    case Opcode::rename:
    case Opcode::rename2:
    case Opcode::link:
    case Opcode::write:
    case Opcode::create:
    case Opcode::tmpfile:
    case Opcode::setxattr:
    case Opcode::removexattr:
    case Opcode::fallocate:
    case Opcode::copyFileRange: return reply.fail(EROFS);
    // Unknown to the kernel from then on, which then does what is right by itself: no extended attributes, nothing to flush
    // or sync, seeks and locks within the kernel, INTERRUPT never sent again, access(2) by the mode bits.
    default: return reply.fail(ENOSYS);
  }
}

Negotiated Responder::negotiated() const {
  const ImageHeader& header = core_.nodes().image().header();
  return {static_cast<std::uint32_t>(header.fuseMinor.load(std::memory_order_acquire)), header.fuseFlags.load()};
}

std::string Responder::refusal() const {
  const std::scoped_lock guard(refusalLock_);
  return refusal_;
}

void Responder::init(const Request& request, Reply& reply) {
  const auto refuse = [&](const std::string& why) {
    const std::scoped_lock guard(refusalLock_);
    refusal_ = why;
    reply.fail(EPROTO);
  };
  if (request.body.size() < fuse::initInOldBytes) return refuse("the kernel's INIT request is cut");
  fuse::InitIn in{};
  std::memcpy(&in, request.body.data(), std::min(request.body.size(), sizeof in));
  fuse::InitOut out{};
  out.major = fuse::major;
  out.minor = std::min(newestMinor_, fuse::newestMinor);
  if (in.major > fuse::major) return reply.put(out);  // the kernel asks again in our version
  if (in.major < fuse::major || in.minor < fuse::oldestMinor) {
    return refuse("the kernel speaks FUSE " + std::to_string(in.major) + "." + std::to_string(in.minor) +
                  ", at least 7." + std::to_string(fuse::oldestMinor) + " is needed");
  }
  ImageHeader& header = core_.nodes().image().header();
  const std::uint32_t minor = std::min(in.minor, out.minor);
  std::uint64_t offered = in.flags;
  if ((in.flags & fuse::initExt) != 0) offered |= std::uint64_t{in.flags2} << 32;
  // Without asyncDio Linux 6.18 does not move the position of a read by io_uring, and asks for the rest at the same place.
  const std::uint64_t wanted =
      fuse::asyncDio | fuse::parallelDirops | fuse::initExt | fuse::directIoAllowMmap | fuse::hasResend;
  const std::uint64_t agreed = offered & wanted;
  out.maxReadahead = in.maxReadahead;
  out.flags = static_cast<std::uint32_t>(agreed);
  out.flags2 = static_cast<std::uint32_t>(agreed >> 32);
  out.maxWrite = maxWriteBytes;
  out.timeGran = 1;
  header.fuseFlags.store(agreed);
  header.fuseMinor.store(minor, std::memory_order_release);
  reply.put(out);
}

// Its thread waits for the answer: who it is can still be asked.
void Responder::account(const Request& request, const NodeRecord& node, AccessOutcome outcome) {
  if ((node.flags & nodeProbe) != 0) return;
  const Caller caller = callers_.identify(request.header.pid);
  AccessBook& book = core_.accessBook();
  if (caller.cgroup != 0 && !book.knowsCgroup(caller.cgroup)) {
    std::string path = callers_.cgroupPath(caller.thread);
    if (callers_.cgroupAt(path) == caller.cgroup) book.nameCgroup(caller.cgroup, std::move(path));
  }
  book.record({node.id, outcome, request.header.uid, request.header.gid, caller}, realtimeMs());
}

void Responder::refuse(const Request& request, const NodeRecord& node, AccessOutcome outcome, Reply& reply) {
  account(request, node, outcome);
  switch (outcome) {
    case AccessOutcome::notAttached: return reply.fail(EACCES);
    case AccessOutcome::wouldBeCached: return reply.fail(EINVAL);
    default: return reply.fail(ESTALE);
  }
}

std::uint64_t Responder::validSeconds() const {
  return negotiated().minor >= fuse::epochMinor ? validWithEpoch : validWithoutEpoch;
}

fuse::Attr Responder::attributes(const NodeRecord& node) const {
  fuse::Attr attr{};
  attr.ino = inodeNumber(node.id);
  attr.size = node.size;
  attr.blocks = (node.size + statBlockBytes - 1) / statBlockBytes;
  const std::uint64_t ms = node.modifiedMs;
  attr.atime = attr.mtime = attr.ctime = ms / 1000;
  attr.atimensec = attr.mtimensec = attr.ctimensec = static_cast<std::uint32_t>(ms % 1000 * 1'000'000);
  attr.mode = node.mode;
  attr.nlink = 1;
  if (S_ISDIR(node.mode)) {
    const DirectoryBlock* const block = core_.nodes().image().block(node);
    attr.nlink = block == nullptr ? 2 : static_cast<std::uint32_t>(block->links);
  }
  attr.uid = node.uid;
  attr.gid = node.gid;
  attr.blksize = blockBytes;
  return attr;
}

void Responder::lookup(const Request& request, Reply& reply) {
  const Image& image = core_.nodes().image();
  const NodeRecord* const directory = image.find(request.header.nodeid);
  const auto name = request.name();
  if (directory == nullptr) return reply.fail(ESTALE);
  if (!name) return reply.fail(EINVAL);
  if (!S_ISDIR(directory->mode)) return reply.fail(ENOTDIR);
  if (name->size() > maxNameBytes) return reply.fail(ENAMETOOLONG);  // the kernel lets 1,024 bytes and more through
  DirectoryBlock* const block = image.block(*directory);
  if (block == nullptr) return reply.fail(ENOENT);
  DirectoryEntry* entry = Image::firstEntry(block);
  for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
    if (std::string_view(entry->name(), entry->nameBytes) != *name) continue;
    const NodeRecord* const node = image.find(entry->node);
    if (node == nullptr) break;
    fuse::EntryOut out{};
    out.nodeid = node->id;
    out.entryValid = out.attrValid = validSeconds();
    out.attr = attributes(*node);
    return reply.put(out);
  }
  reply.fail(ENOENT);  // not kept by the kernel: a name may come at any time
}

void Responder::getattr(const Request& request, Reply& reply) {
  const NodeRecord* const node = core_.nodes().image().find(request.header.nodeid);
  if (node == nullptr) return reply.fail(ESTALE);
  fuse::AttrOut out{};
  out.attrValid = validSeconds();
  out.attr = attributes(*node);
  reply.put(out);
}

void Responder::readlink(const Request& request, Reply& reply) {
  const Image& image = core_.nodes().image();
  const NodeRecord* const node = image.find(request.header.nodeid);
  if (node == nullptr) return reply.fail(ESTALE);
  if (!S_ISLNK(node->mode)) return reply.fail(EINVAL);
  std::memcpy(reply.room.data(), image.bytes().data() + node->content, node->size);
  reply.length = node->size;
}

void Responder::open(const Request& request, Reply& reply) {
  const Image& image = core_.nodes().image();
  const auto in = request.as<fuse::OpenIn>();
  const NodeRecord* const node = image.find(request.header.nodeid);
  if (!in) return reply.fail(EINVAL);
  // Also for a version that a newer one has replaced: at an ESTALE the kernel asks for the name again and opens the newer one.
  if (node == nullptr || (node->flags & nodeSuperseded) != 0) return reply.fail(ESTALE);
  if (S_ISDIR(node->mode)) return reply.fail(EISDIR);
  if (S_ISLNK(node->mode)) return reply.fail(ELOOP);
  if ((in->flags & O_ACCMODE) != O_RDONLY || (in->flags & O_TRUNC) != 0) return reply.fail(EROFS);
  if (!gate_.passes(core_.nodes(), node->gated, request.header.pid))
    return refuse(request, *node, AccessOutcome::notAttached, reply);
  if (node->content == 0) return refuse(request, *node, AccessOutcome::wiped, reply);
  if (!core_.serves(*node)) return refuse(request, *node, AccessOutcome::leaseOver, reply);
  account(request, *node, AccessOutcome::opened);
  fuse::OpenOut out{};
  // Names this descriptor in poll(2) and RELEASE, nothing else: what is read is told by the node.
  out.fh = image.header().nextHandle.fetch_add(1);
  // A node's bytes never change. And pages that an open would drop, somebody may hold (a pipe does): only what is still in the
  // page cache can be zeroed at a wipe.
  out.openFlags = fuse::fopenDirectIo | fuse::fopenNoflush | fuse::fopenKeepCache;
  reply.put(out);
}

void Responder::read(const Request& request, Reply& reply) {
  const Image& image = core_.nodes().image();
  const auto in = request.as<fuse::ReadIn>();
  const NodeRecord* const node = image.find(request.header.nodeid);
  if (!in) return reply.fail(EINVAL);
  if (node == nullptr) return reply.fail(ESTALE);
  if (!S_ISREG(node->mode)) return reply.fail(EISDIR);
  const std::uint64_t content = node->content.load(std::memory_order_acquire);
  const std::uint64_t flags = node->flags;
  if (!gate_.passes(core_.nodes(), node->gated, request.header.pid))
    return refuse(request, *node, AccessOutcome::notAttached, reply);
  if (content == 0 || isOver(*node)) return refuse(request, *node, AccessOutcome::wiped, reply);
  if (!core_.serves(*node)) return refuse(request, *node, AccessOutcome::leaseOver, reply);
  // What would fill the page cache (mmap, splice, sendfile, readahead) has no lock owner.
  if ((flags & nodeMappable) == 0 && (in->readFlags & fuse::readLockOwner) == 0)
    return refuse(request, *node, AccessOutcome::wouldBeCached, reply);
  if (in->offset >= node->size) return;
  const std::size_t wanted = std::min<std::size_t>(in->size, maxReadBytes);
  reply.length = std::min<std::size_t>(wanted, node->size - in->offset);
  std::memcpy(reply.room.data(), image.bytes().data() + content + node->skip + in->offset, reply.length);
}

void Responder::release(const Request& request) {
  const auto in = request.as<fuse::ReleaseIn>();
  if (!in) return;
  const std::scoped_lock guard(pollLock_);
  core_.nodes().removeWaiters(in->fh);
}

void Responder::opendir(const Request& request, Reply& reply) {
  const NodeRecord* const node = core_.nodes().image().find(request.header.nodeid);
  if (node == nullptr) return reply.fail(ESTALE);
  if (!S_ISDIR(node->mode)) return reply.fail(ENOTDIR);
  reply.put(fuse::OpenOut{});
}

void Responder::readdir(const Request& request, Reply& reply) {
  const Image& image = core_.nodes().image();
  const auto in = request.as<fuse::ReadIn>();
  const NodeRecord* const directory = image.find(request.header.nodeid);
  if (!in) return reply.fail(EINVAL);
  if (directory == nullptr) return reply.fail(ESTALE);
  if (!S_ISDIR(directory->mode)) return reply.fail(ENOTDIR);
  const std::size_t room = std::min<std::size_t>(in->size, maxReadBytes);

  // False when it does not fit any more.
  const auto put = [&](std::uint64_t id, std::uint32_t type, std::uint64_t cookie, std::string_view name) {
    const std::size_t bytes = (sizeof(fuse::Dirent) + name.size() + 7) / 8 * 8;
    if (reply.length + bytes > room) return false;
    const fuse::Dirent dirent{inodeNumber(id), cookie, static_cast<std::uint32_t>(name.size()), type};
    std::byte* const at = reply.room.data() + reply.length;
    std::memset(at, 0, bytes);
    std::memcpy(at, &dirent, sizeof dirent);
    std::memcpy(at + sizeof dirent, name.data(), name.size());
    reply.length += bytes;
    return true;
  };
  constexpr std::uint32_t directoryType = S_IFDIR >> 12;
  if (in->offset < 1 && !put(directory->id, directoryType, 1, ".")) return;
  if (in->offset < 2 && !put(directory->parent, directoryType, 2, "..")) return;
  DirectoryBlock* const block = image.block(*directory);
  if (block == nullptr) return;
  DirectoryEntry* entry = Image::firstEntry(block);
  for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
    if (entry->cookie <= in->offset) continue;
    const NodeRecord* const node = image.find(entry->node);
    if (node == nullptr) continue;
    if (!put(node->id, direntType(*node), entry->cookie, std::string_view(entry->name(), entry->nameBytes))) return;
  }
}

// POLLIN always; POLLPRI once a newer version is there; POLLERR when nothing can be read any more.
void Responder::poll(const Request& request, Reply& reply) {
  const auto in = request.as<fuse::PollIn>();
  if (!in || in->kh == 0) return reply.fail(EINVAL);  // the kernel counts its handles from 1; 0 is nobody's
  const NodeRecord* const node = core_.nodes().image().find(request.header.nodeid);
  fuse::PollOut out{};
  out.revents = POLLIN | POLLRDNORM;
  if (node == nullptr || (S_ISREG(node->mode) && node->content == 0) || isOver(*node)) {
    out.revents |= POLLERR | POLLPRI;
  } else {
    if ((node->flags & nodeSuperseded) != 0) out.revents |= POLLPRI;
    if ((in->flags & fuse::pollScheduleNotify) != 0) {
      // Also of a replaced version: who wants POLLERR alone waits for its end.
      const std::scoped_lock guard(pollLock_);
      if (!core_.nodes().addWaiter(in->kh, in->fh, node->id)) return reply.fail(ENOSPC);
    }
  }
  reply.put(out);
}

// No blocks in use and none free, as /proc says it: df shows the mount, no disk-space alarm counts it.
void Responder::statfs(Reply& reply) {
  fuse::Kstatfs out{};
  out.bsize = out.frsize = blockBytes;
  out.namelen = maxNameBytes;
  reply.put(out);
}

}  // namespace inro
