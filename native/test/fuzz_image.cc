// libFuzzer: a good image with any bytes over it, given to a successor, which refuses it with words and leaves it as it is, or
// serves it, changes it and wipes it without ever reading or writing anything outside.
#include <unistd.h>

#include "fuzz_image.h"

using namespace inro;
using namespace inro::test;

namespace {

// Between two pages that nobody may touch.
std::span<std::byte> guarded(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const start = mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) std::abort();
  auto* const inside = static_cast<std::byte*>(start) + page;
  if (mprotect(inside, bytes, PROT_READ | PROT_WRITE) != 0) std::abort();
  return {inside, bytes};
}

std::vector<std::uint64_t> idsOf(const Image& image) {
  std::vector<std::uint64_t> ids;
  for (const NodeRecord& node : image.nodes()) {
    if (node.id != 0) ids.push_back(node.id);
  }
  return ids;
}

void askAll(Core& core) {
  Kernel kernel(core);
  for (const std::uint64_t id : idsOf(core.nodes().image())) {
    kernel.ask(fuse::Opcode::getattr, id);
    kernel.ask(fuse::Opcode::readlink, id);
    kernel.ask(fuse::Opcode::opendir, id);
    kernel.lookup(id, "key");
    kernel.lookup(id, "never there");
    kernel.read(id, 0, 65536);
    kernel.read(id, 3, 4, true);
    kernel.open(id);
    kernel.thread = 10;
    kernel.open(id);
    kernel.thread = 0;
    kernel.poll(id, id, id);
    kernel.ask(fuse::Opcode::release, id, Kernel::flat(fuse::ReleaseIn{id, 0, 0, 0}));
    for (std::uint64_t offset = 0, rounds = 0; rounds < 8; rounds++) {
      const auto names = kernel.list(id, offset, 256);
      if (names.empty()) break;
      offset = names.back().second;
    }
  }
  core.collectAccesses();
}

// What is free is given out once more and filled with bytes that mean nothing.
void fillFree(Core& core, std::byte with) {
  std::vector<Arena::PieceId> pieces;
  for (std::size_t bytes = 1024; bytes >= 64; bytes /= 2) {
    while (const auto piece = core.alloc(bytes)) {
      std::ranges::fill(piece->bytes, with);
      pieces.push_back(piece->id);
    }
  }
  askAll(core);
  for (const auto piece : pieces) core.release(piece);
}

void useAll(Core& core) {
  const auto memory = core.mapping().bytes();
  const Image& image = core.nodes().image();
  // Values, as a successor finds them.
  std::vector<std::pair<Arena::PieceId, std::uint64_t>> values;
  for (const std::uint64_t id : idsOf(image)) {
    const NodeRecord& node = *image.find(id);
    if (static_cast<NodeKind>(node.kind) != NodeKind::file) continue;
    const auto piece = core.find(memory.data() + node.content);
    if (!piece) std::abort();
    values.emplace_back(*piece, id);
  }
  askAll(core);
  fillFree(core, std::byte{0xff});

  // A step, twice: names come, are replaced, are removed.
  Builder build(core);
  for (int round = 0; round < 2; round++) {
    const auto piece = core.alloc(40);
    const auto added = piece ? build.fileIfRoom(piece->id, 8) : std::nullopt;
    if (added) {
      values.emplace_back(piece->id, *added);
    } else if (piece) {
      core.release(piece->id);
    }
    std::vector<std::pair<std::string, std::uint64_t>> entries;
    for (const std::uint64_t id : idsOf(image)) entries.emplace_back("n" + std::to_string(id), id);
    build.fill(rootNode, entries);
    for (const std::uint64_t id : idsOf(image)) build.step.removed.emplace_back(id, "key");
    build.step.changedMs = 1;
    (void)build.commit();
    if (core.nodes().used() > image.nodes().size()) std::abort();
    askAll(core);
  }

  // Wipes. After one, neither its node nor another one shows what comes to its place.
  for (const auto& [piece, id] : values) {
    core.release(piece);
    Kernel kernel(core);
    kernel.init();
    const int error = kernel.read(id).error;
    if (error != ESTALE && error != EACCES) std::abort();  // EACCES: a gate lets nobody pass
    fillFree(core, std::byte{0x41});
  }
  for (const std::uint64_t id : idsOf(image)) build.step.gone.push_back(id);
  build.step.removed = {{rootNode, "web"}};
  if (!build.commit().empty()) std::abort();
  if (core.nodes().used() != 1) std::abort();
  build.fill(rootNode, {});
  if (!build.commit().empty()) std::abort();
  core.keepNote({});
  if (core.use().usedBytes != 0) std::abort();  // nothing is lost
  fillFree(core, std::byte{0xff});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::byte> good = goodImage();
  static const std::span<std::byte> memory = guarded(good.size());
  static const auto parts = fuzzParts();
  std::memcpy(memory.data(), good.data(), good.size());
  while (size > patchHeaderBytes) {
    const FuzzPart& part = parts[data[0] % parts.size()];
    const std::size_t at = part.offset + (data[1] | std::size_t{data[2]} << 8) % part.bytes;
    const std::size_t length = std::min({std::size_t{data[3]} % maxPatchBytes + 1, size - patchHeaderBytes, good.size() - at});
    std::memcpy(memory.data() + at, data + patchHeaderBytes, length);
    data += patchHeaderBytes + length;
    size -= patchHeaderBytes + length;
  }
  std::string error;
  auto core = Core::adopt(LockedMapping::borrow(memory), error);
  if (core) {
    useAll(*core);
  } else if (error.empty()) {
    std::abort();  // refused without words
  }
  return 0;
}
