// libFuzzer: any bytes as requests to a mount with a few files, with changes in between. Without a hand with nodes and lengths it
// would hardly ever get past the first check, so those are drawn towards what there is.
#include <algorithm>
#include <array>

#include "fuzz_request.h"

using namespace inro;
using namespace inro::test;

namespace {

constexpr std::size_t nodes = 64;
constexpr std::size_t heapBytes = 64 * 1024;

// Made once: new locked memory for each input would take most of the time.
std::span<std::byte> memoryAllZero() {
  alignas(4096) static std::array<std::byte, 1024 * 1024> memory;
  const std::span<std::byte> used = std::span(memory).first(layoutOf(nodes).heapOffset + heapBytes);
  std::ranges::fill(used, std::byte{0});
  return used;
}

std::unique_ptr<Core> emptyCore() {
  std::string error;
  auto core = Core::createOn(LockedMapping::borrow(memoryAllZero()), {heapBytes, true, nodes, 0, 0}, error);
  if (!core) std::abort();
  core->serveUntil(forEver);
  return core;
}

struct World {
  std::unique_ptr<Core> core = emptyCore();
  Kernel kernel{*core};
  Builder build{*core};
  std::uint64_t web = 0;
  std::uint64_t shown = 0;
  Arena::PieceId piece{};
  World() {
    kernel.init();
    web = build.directory();
    build.fill(rootNode, {{"web", web}, {"link", build.link("..1")}, {"mapped", build.file("mapped", true)}});
    if (!build.commit().empty()) std::abort();
    publish();
  }

  void publish() {
    piece = build.value("a value of some bytes");
    const auto before = shown;
    shown = build.file(piece, 21);
    build.fill(web, {{"key", shown}, {"empty", build.file("")}, {std::string(255, 'n'), shown}});
    if (before != 0) build.step.gone = {before};
    if (!build.commit().empty()) std::abort();
  }

  void change(FuzzChange what) {
    switch (what) {
      case FuzzChange::publish:
        if (core->use().freeBytes > 8 * 1024 && core->nodesUsed() < 40) publish();
        return;
      case FuzzChange::wipe: core->release(piece); return;
      case FuzzChange::withdraw:
        build.fill(web, {});
        build.step.superseded = {shown};
        build.step.readableUntilMs = forEver;
        if (!build.commit().empty()) std::abort();
        return;
      case FuzzChange::leaseEnds: core->serveUntil(0); return;
      case FuzzChange::leaseBegins: core->serveUntil(forEver); return;
    }
  }

  void answer(const std::string& request) {
    // In memory of exactly its length.
    const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(request.data()),
                                       reinterpret_cast<const std::byte*>(request.data()) + request.size());
    // Exactly as much room as a reply may take: one byte more is found.
    static std::vector<std::byte> out(replyBytes);
    const std::size_t length = kernel.responder().answer(bytes, out);
    const bool isAnswered = request.size() >= sizeof(fuse::InHeader);
    fuse::InHeader in{};
    std::memcpy(&in, request.data(), std::min(sizeof in, request.size()));
    const auto opcode = static_cast<fuse::Opcode>(in.opcode);
    const bool isSilent = opcode == fuse::Opcode::forget || opcode == fuse::Opcode::batchForget || opcode == fuse::Opcode::notifyReply;
    if (!isAnswered || isSilent) {
      if (length != 0) std::abort();
      return;
    }
    // What the kernel demands of a reply, else it refuses it and the reader waits.
    if (length < sizeof(fuse::OutHeader) || length > out.size()) std::abort();
    fuse::OutHeader header{};
    std::memcpy(&header, out.data(), sizeof header);
    if (header.len != length || header.unique != in.unique || header.error > 0 || header.error <= -512) std::abort();
    if (header.error != 0 && length != sizeof header) std::abort();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  World world;
  while (size > askHeaderBytes) {
    const std::size_t body = std::min((data[0] | std::size_t{data[1]} << 8) % maxBodyBytes, size - askHeaderBytes);
    const auto kind = static_cast<std::uint8_t>(data[2] % fuzzKinds);
    if (kind >= fuzzOpcodes) {
      world.change(static_cast<FuzzChange>(kind));
    } else {
      const std::size_t slot = data[3] % fuzzSlots;
      const auto nodes = world.core->nodes().image().nodes();
      fuse::InHeader header{};
      header.opcode = kind;
      header.nodeid = slot < nodes.size() && nodes[slot].id != 0 ? nodes[slot].id.load() : slot;
      header.unique = 7;
      const auto length = static_cast<FuzzLength>(data[4] % 3);
      header.len = static_cast<std::uint32_t>(sizeof header + body + (length == FuzzLength::tooLong ? 5 : 0));
      std::string request(reinterpret_cast<const char*>(&header), sizeof header);
      request.append(reinterpret_cast<const char*>(data + askHeaderBytes), body);
      if (length == FuzzLength::cut) request.resize(data[4] % request.size());
      world.answer(request);
      if (kind == static_cast<std::uint8_t>(fuse::Opcode::init)) world.kernel.init();
    }
    data += askHeaderBytes + body;
    size -= askHeaderBytes + body;
  }
  return 0;
}
