// libFuzzer: a good image with any bytes over it, given to a successor, which refuses it or serves it without touching anything
// outside. The input is a list of (place, length, bytes); places are drawn towards the header, the tables and what the heap holds.
#include <cstdint>

#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

constexpr std::size_t nodes = 16;
constexpr std::size_t heapBytes = 8 * 1024;

std::vector<std::byte> goodImage() {
  std::string error;
  auto core = Core::create({heapBytes, true, nodes, 0, 0}, error);
  core->serveUntil(forEver);
  Kernel kernel(*core);
  kernel.init();
  Builder build(*core);
  const auto web = build.directory();
  const auto old = build.file("superseded");
  build.fill(rootNode, {{"web", web}, {"link", build.link("..1")}});
  build.fill(web, {{"key", old}, {"other", build.file("other", true)}});
  build.commit();
  build.fill(web, {{"key", build.file("newer")}, {"same", build.file("same")}});
  build.step.superseded = {old};
  build.step.readableUntilMs = forEver;
  build.commit();
  kernel.poll(web, 5, 6);
  // A journal that waits to be carried out.
  const Image& image = core->nodes().image();
  image.journal()[0] = {image.offsetOf(image.find(web)->modifiedMs), 12345};
  const auto memory = core->mapping().bytes();
  std::vector<std::byte> copy(memory.begin(), memory.end());
  reinterpret_cast<ImageHeader*>(copy.data())->journalLength = 1;
  return copy;
}

void useAll(Core& core) {
  Kernel kernel(core);
  const Image& image = core.nodes().image();
  for (std::size_t slot = 0; slot < image.nodes().size(); slot++) {
    const std::uint64_t id = image.nodes()[slot].id;
    if (id == 0) continue;
    kernel.ask(fuse::Opcode::getattr, id);
    kernel.ask(fuse::Opcode::readlink, id);
    kernel.lookup(id, "key");
    kernel.read(id, 0, 65536);
    kernel.open(id);
    kernel.poll(id, slot, slot + 1);
    for (std::uint64_t offset = 0, rounds = 0; rounds < 8; rounds++) {
      const auto names = kernel.list(id, offset, 256);
      if (names.empty()) break;
      offset = names.back().second;
    }
  }
  Builder build(core);
  const auto id = core.reserve();
  if (id) core.giveBack(*id);
  build.fill(rootNode, {});
  build.step.removed = {{rootNode, "web"}};
  for (std::size_t slot = 2; slot < image.nodes().size(); slot++) build.step.gone.push_back(image.nodes()[slot].id);
  build.commit();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::byte> good = goodImage();
  static std::byte* const memory =
      static_cast<std::byte*>(mmap(nullptr, good.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memcpy(memory, good.data(), good.size());
  const ImageLayout layout = layoutOf(nodes);
  while (size > 4) {
    std::size_t at = 0;
    const std::size_t place = data[1] | std::size_t{data[2]} << 8;
    switch (data[0] % 4) {
      case 0: at = place % sizeof(ImageHeader); break;
      case 1: at = layout.nodesOffset + place % (nodes * sizeof(NodeRecord)); break;
      case 2: at = layout.heapOffset + place % 1024; break;
      case 3: at = layout.journalOffset + place % 64; break;
    }
    const std::size_t length = std::min({std::size_t{data[3]} % 16 + 1, size - 4, good.size() - at});
    std::memcpy(memory + at, data + 4, length);
    data += 4 + length;
    size -= 4 + length;
  }
  std::string error;
  auto core = Core::adopt(LockedMapping::borrow({memory, good.size()}), error);
  if (core) {
    useAll(*core);
  } else if (error.empty()) {
    std::abort();  // refused without words
  }
  return 0;
}
