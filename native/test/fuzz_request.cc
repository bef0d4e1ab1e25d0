// libFuzzer: any bytes as requests, one after the other, to a mount with a few files. A byte in front of each says how long it is.
#include <cstdint>

#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

struct World {
  std::unique_ptr<Core> core = newCore(64 * 1024, 64);
  Kernel kernel{*core};
  std::vector<std::byte> out = std::vector<std::byte>(replyBytes);

  World() {
    kernel.init();
    Builder build(*core);
    const auto web = build.directory();
    const auto file = build.file("a value of some bytes");
    build.fill(rootNode, {{"web", web}, {"link", build.link("..1")}, {"mapped", build.file("mapped", true)}});
    build.fill(web, {{"key", file}, {"empty", build.file("")}});
    if (!build.commit().empty()) std::abort();
  }
};

}  // namespace

// Without a corpus the fuzzer would hardly ever hit a node: so nodes and lengths are drawn towards what there is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  while (size > 4) {
    const std::size_t body = std::min<std::size_t>(data[0], size - 4);
    fuse::InHeader header{};
    header.opcode = data[1] % 56;
    const std::uint64_t slot = data[2] % 12;
    header.nodeid = slot < 2 ? slot : world.core->nodes().image().nodes()[slot].id.load();
    header.unique = 7;
    header.len = static_cast<std::uint32_t>(sizeof header + body + (data[3] == 1 ? 5 : 0));
    std::string request(reinterpret_cast<const char*>(&header), sizeof header);
    request.append(reinterpret_cast<const char*>(data + 4), body);
    if (data[3] == 2) request.resize(std::min<std::size_t>(request.size(), data[0]));
    const std::size_t length = world.kernel.responder().answer(std::as_bytes(std::span(request)), world.out);
    if (length != 0 && (length < sizeof(fuse::OutHeader) || length > world.out.size())) std::abort();
    if (header.opcode == static_cast<std::uint32_t>(fuse::Opcode::init)) world.kernel.init();
    data += 4 + body;
    size -= 4 + body;
  }
  return 0;
}
