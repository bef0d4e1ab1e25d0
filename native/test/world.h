// A core with a few files, put together as the agent does it, and questions to it as the kernel puts them.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core.h"
#include "responder.h"

namespace inro::test {

constexpr std::uint64_t forEver = std::uint64_t{1} << 52;

struct Reply {
  int error = 0;  // an errno
  std::string body;
  bool none = false;

  template <typename T>
  T as() const {
    T value{};
    std::memcpy(&value, body.data(), std::min(sizeof value, body.size()));
    return value;
  }
};

// Threads and cgroups as a test says.
class FakeCallers final : public CallerSource {
 public:
  std::map<std::uint32_t, std::string> paths;    // by thread
  std::map<std::string, std::uint64_t> cgroups;  // by path
  std::size_t lookups = 0;                       // of paths
  std::string delegated = "/user";               // where others than root make cgroups

  std::uint64_t cgroupOf(std::uint32_t thread) override {
    const auto known = paths.find(thread);
    return known == paths.end() ? 0 : cgroupAt(known->second);
  }
  Caller identify(std::uint32_t thread) override {
    Caller caller;
    caller.thread = thread;
    caller.process = thread + 1000;
    caller.cgroup = cgroupOf(thread);
    std::memcpy(caller.name, "reader", 7);
    return caller;
  }
  std::string cgroupPath(std::uint32_t thread) override {
    lookups++;
    return paths.contains(thread) ? paths[thread] : "";
  }
  std::uint64_t cgroupAt(const std::string& path) override { return cgroups.contains(path) ? cgroups[path] : 0; }
  bool isProtected(const std::string& path) override { return !path.starts_with(delegated); }
};

// Builds requests and takes replies apart.
class Kernel {
 public:
  explicit Kernel(Core& core, std::uint32_t newestMinor = fuse::newestMinor) : responder_(core, callers, newestMinor) {}

  FakeCallers callers;
  std::uint32_t thread = 0;  // who asks

  static std::string bytes(fuse::Opcode opcode, std::uint64_t node, std::string_view body = {}, std::uint64_t unique = 2,
                           std::uint32_t thread = 0) {
    fuse::InHeader header{};
    header.pid = thread;
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = static_cast<std::uint32_t>(opcode);
    header.unique = unique;
    header.nodeid = node;
    std::string text(reinterpret_cast<const char*>(&header), sizeof header);
    return text.append(body);
  }
  template <typename T>
  static std::string flat(const T& value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string initBody(std::uint32_t minor, std::uint32_t major = 7) {
    fuse::InitIn in{};
    in.major = major;
    in.minor = minor;
    in.flags = 0xffffffff;
    in.flags2 = 0xffffffff;
    return flat(in);
  }
  static Reply parsed(std::span<const std::byte> out) {
    Reply reply;
    if (out.empty()) {
      reply.none = true;
      return reply;
    }
    fuse::OutHeader header{};
    std::memcpy(&header, out.data(), sizeof header);
    reply.error = -header.error;
    reply.body.assign(reinterpret_cast<const char*>(out.data()) + sizeof header, out.size() - sizeof header);
    return reply;
  }

  Reply raw(std::string_view request) {
    const std::size_t length = responder_.answer(std::as_bytes(std::span(request)), out_);
    return parsed(std::span<const std::byte>(out_).first(length));
  }
  Reply ask(fuse::Opcode opcode, std::uint64_t node, std::string_view body = {}) {
    return raw(bytes(opcode, node, body, 2, thread));
  }
  Reply init(std::uint32_t minor = 45, std::uint32_t major = 7) { return ask(fuse::Opcode::init, 0, initBody(minor, major)); }
  Reply lookup(std::uint64_t directory, const std::string& name) {
    return ask(fuse::Opcode::lookup, directory, std::string(name.c_str(), name.size() + 1));
  }
  // The node at a path below the root, 0 when there is none.
  std::uint64_t walk(const std::string& path) {
    std::uint64_t node = rootNode;
    for (std::size_t from = 0; from < path.size();) {
      const std::size_t end = std::min(path.find('/', from), path.size());
      const Reply reply = lookup(node, path.substr(from, end - from));
      if (reply.error != 0) return 0;
      node = reply.as<fuse::EntryOut>().nodeid;
      from = end + 1;
    }
    return node;
  }
  Reply read(std::uint64_t node, std::uint64_t offset = 0, std::uint32_t size = 4096, bool fillsCache = false) {
    fuse::ReadIn in{};
    in.offset = offset;
    in.size = size;
    in.readFlags = fillsCache ? 0 : fuse::readLockOwner;
    return ask(fuse::Opcode::read, node, flat(in));
  }
  Reply open(std::uint64_t node, std::uint32_t flags = 0) { return ask(fuse::Opcode::open, node, flat(fuse::OpenIn{flags, 0})); }
  Reply poll(std::uint64_t node, std::uint64_t handle, std::uint64_t kernelHandle) {
    fuse::PollIn in{};
    in.fh = handle;
    in.kh = kernelHandle;
    in.flags = fuse::pollScheduleNotify;
    return ask(fuse::Opcode::poll, node, flat(in));
  }
  // Names from `offset` on, and the position behind each.
  std::vector<std::pair<std::string, std::uint64_t>> list(std::uint64_t node, std::uint64_t offset = 0, std::uint32_t size = 4096) {
    fuse::ReadIn in{};
    in.offset = offset;
    in.size = size;
    const Reply reply = ask(fuse::Opcode::readdir, node, flat(in));
    std::vector<std::pair<std::string, std::uint64_t>> all;
    for (std::size_t at = 0; at + sizeof(fuse::Dirent) <= reply.body.size();) {
      fuse::Dirent dirent{};
      std::memcpy(&dirent, reply.body.data() + at, sizeof dirent);
      all.emplace_back(reply.body.substr(at + sizeof dirent, dirent.namelen), dirent.off);
      at += (sizeof dirent + dirent.namelen + 7) / 8 * 8;
    }
    return all;
  }
  // The file's bytes, or the errno in words.
  std::string content(const std::string& path) {
    const std::uint64_t node = walk(path);
    if (node == 0) return "ENOENT";
    const Reply reply = read(node);
    return reply.error == 0 ? reply.body : "errno " + std::to_string(reply.error);
  }
  Responder& responder() { return responder_; }

 private:
  Responder responder_;
  // As much as a reply may take. One buffer for all: fresh ones would take most of a fuzzer's time.
  static inline std::vector<std::byte> out_ = std::vector<std::byte>(replyBytes);
};

// Puts steps together.
class Builder {
 public:
  explicit Builder(Core& core) : core_(core) {}

  Arena::PieceId value(std::string_view text) {
    const auto piece = core_.alloc(32 + text.size());
    if (!piece) std::abort();
    std::memcpy(piece->bytes.data() + 32, text.data(), text.size());
    return piece->id;
  }
  // Nothing when the table of nodes is full, or their serial numbers are used up.
  std::optional<std::uint64_t> fileIfRoom(Arena::PieceId piece, std::size_t size) {
    const auto id = core_.reserve();
    return id ? std::optional(file(*id, piece, size, false)) : std::nullopt;
  }
  std::uint64_t file(Arena::PieceId piece, std::size_t size, bool mappable = false) {
    return file(reserved(), piece, size, mappable);
  }
  std::uint64_t file(std::string_view text, bool mappable = false) { return file(value(text), text.size(), mappable); }
  std::uint64_t directory(std::uint64_t parent = rootNode) {
    NewNode node = made(reserved(), NodeKind::directory, 0555);
    node.parent = parent;
    step.made.push_back(node);
    return node.id;
  }
  std::uint64_t link(std::string text) {
    NewNode node = made(reserved(), NodeKind::link, 0777);
    node.text = std::move(text);
    step.made.push_back(node);
    return node.id;
  }
  void fill(std::uint64_t directory, std::vector<std::pair<std::string, std::uint64_t>> entries) {
    step.filled.push_back({directory, std::move(entries)});
  }
  // Empty when it was carried out.
  std::string commit() {
    std::string error;
    const bool done = core_.commit(step, error);
    step = {};
    return done ? "" : error;
  }

  Step step;

 private:
  std::uint64_t reserved() {
    const auto id = core_.reserve();
    if (!id) std::abort();
    return *id;
  }
  static NewNode made(std::uint64_t id, NodeKind kind, std::uint32_t mode) {
    NewNode node{};
    node.id = id;
    node.kind = kind;
    node.mode = mode;
    return node;
  }
  std::uint64_t file(std::uint64_t id, Arena::PieceId piece, std::size_t size, bool mappable) {
    NewNode node = made(id, NodeKind::file, 0444);
    node.piece = piece;
    node.skip = 32;
    node.size = size;
    node.mappable = mappable;
    step.made.push_back(node);
    return node.id;
  }

  Core& core_;
};

inline std::unique_ptr<Core> newCore(std::size_t heapBytes = 1 << 20, std::size_t nodes = 512) {
  std::string error;
  auto core = Core::create({heapBytes, true, nodes, 0, 0}, error);
  if (!core) std::abort();
  core->serveUntil(forEver);
  return core;
}

}  // namespace inro::test
