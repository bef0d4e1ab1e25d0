// What a successor makes of the memory that it is given: damaged, foreign, or left in the middle of a change.
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "check.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

constexpr std::size_t nodes = 16;
constexpr std::size_t heapBytes = 16 * 1024;

std::span<std::byte> sharedMemory() {
  const std::size_t bytes = layoutOf(nodes).heapOffset + heapBytes;
  void* const start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) std::abort();
  return {static_cast<std::byte*>(start), bytes};
}

void keepNote(Core& core, std::string_view note) { CHECK(core.keepNote(std::as_bytes(std::span(note)))); }

struct World {
  std::unique_ptr<Core> core;
  std::uint64_t web, task;
  Arena::PieceId oldA, oldB;
  std::uint64_t fileA, fileB;
};

// Two directories that show the same two files.
World populated(std::span<std::byte> memory) {
  std::string error;
  World world;
  world.core = Core::createOn(LockedMapping::borrow(memory), {heapBytes, true, nodes, 0, 0}, error);
  world.core->serveUntil(forEver);
  Kernel(*world.core).init();
  Builder build(*world.core);
  world.oldA = build.value("old-a-old-a-old-a");
  world.oldB = build.value("old-b-old-b-old-b");
  world.web = build.directory();
  world.task = build.directory();
  world.fileA = build.file(world.oldA, 17);
  world.fileB = build.file(world.oldB, 17);
  build.fill(rootNode, {{"web", world.web}, {"task", world.task}});
  for (const auto directory : {world.web, world.task}) build.fill(directory, {{"a", world.fileA}, {"b", world.fileB}});
  if (!build.commit().empty()) std::abort();
  return world;
}

// What a successor would serve from a copy of the memory as it is now.
std::string adopted(std::span<const std::byte> memory, std::string& leftovers) {
  std::vector<std::byte> room(memory.size() + 4096);
  void* start = room.data();
  std::size_t space = room.size();
  std::align(4096, memory.size(), start, space);
  const std::span<std::byte> copy(static_cast<std::byte*>(start), memory.size());
  std::memcpy(copy.data(), memory.data(), memory.size());
  std::string error;
  auto core = Core::adopt(LockedMapping::borrow(copy), error);
  if (!core) return "refused: " + error;
  Kernel kernel(*core);
  std::string all;
  for (const char* path : {"web/a", "web/b", "task/a", "task/b"}) all += kernel.content(path) + " ";
  const std::string_view text(reinterpret_cast<const char*>(copy.data()), copy.size());
  leftovers.clear();
  for (const char* marker : {"old-a-old-a", "old-b-old-b", "new-a-new-a", "new-b-new-b", "first note", "second note"}) {
    if (text.find(marker) != text.npos) leftovers += std::string(marker) + " ";
  }
  return all;
}

const std::string oldState = "old-a-old-a-old-a old-b-old-b-old-b old-a-old-a-old-a old-b-old-b-old-b ";
const std::string newState = "new-a-new-a-new-a new-b-new-b-new-b new-a-new-a-new-a new-b-new-b-new-b ";

// Only where a step or a wipe writes: comparing all of it after each instruction would take most of the time.
bool changed(std::span<const std::byte> before, std::span<const std::byte> now) {
  constexpr std::size_t journalBytes = 64 * sizeof(JournalStore);
  const ImageLayout layout = layoutOf(nodes);
  const auto differs = [&](std::size_t offset, std::size_t bytes) {
    return std::memcmp(before.data() + offset, now.data() + offset, bytes) != 0;
  };
  return differs(0, sizeof(ImageHeader)) || differs(layout.nodesOffset, nodes * sizeof(NodeRecord)) ||
         differs(layout.journalOffset, journalBytes) || differs(layout.heapOffset, heapBytes);
}

// Runs `change` in a child instruction by instruction, and looks at what a successor would serve wherever the memory changed.
void atEachInstruction(const std::function<void(World&)>& prepare, const std::function<void(World&)>& change, const std::function<void(const std::string&, const std::string&)>& look) {
  const std::span<std::byte> memory = sharedMemory();
  const pid_t child = fork();
  if (child == 0) {
    World world = populated(memory);
    prepare(world);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    change(world);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::vector<std::byte> last(memory.begin(), memory.end());
  std::size_t steps = 0;
  std::size_t states = 0;
  for (;; steps++) {
    if (ptrace(PTRACE_SINGLESTEP, child, 0, 0) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
    if (WSTOPSIG(status) == SIGSTOP) break;
    if (!changed(last, memory)) continue;
    std::memcpy(last.data(), memory.data(), memory.size());
    states++;
    std::string leftovers;
    const std::string state = adopted(memory, leftovers);
    look(state, leftovers);
  }
  CHECK(states > 1);
  std::printf("# %zu instructions, %zu states of the memory\n", steps, states);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  munmap(memory.data(), memory.size());
}

void atEachInstruction(const std::function<void(World&)>& change, const std::function<void(const std::string&, const std::string&)>& look) {
  atEachInstruction([](World&) {}, change, look);
}

}  // namespace

int main() {
  run("an image is adopted as it was left", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    std::string leftovers;
    CHECK_IS(adopted(memory, leftovers), oldState);
    world.core->release(world.oldA);
    CHECK_IS(adopted(memory, leftovers), "ENOENT old-b-old-b-old-b ENOENT old-b-old-b-old-b ");
    CHECK_IS(leftovers, "old-b-old-b ");
  });

  run("after an adoption, ids and pieces go on where they were", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    const auto used = world.core->use().usedBytes;
    const auto lastId = *world.core->reserve();
    std::string error;
    auto core = Core::adopt(LockedMapping::borrow(memory), error);
    CHECK(core != nullptr);
    CHECK_IS(core->use().usedBytes, used);
    CHECK(*core->reserve() > lastId);
    Builder build(*core);
    const auto fresh = build.file("fresh");
    build.fill(world.web, {{"fresh", fresh}});
    CHECK_IS(build.commit(), "");
    Kernel kernel(*core);
    CHECK_IS(kernel.content("web/fresh"), "fresh");
    CHECK_IS(kernel.content("task/b"), "old-b-old-b-old-b");
  });

  run("damage is refused with words, not followed", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    keepNote(*world.core, "first note");
    const std::vector<std::byte> good(memory.begin(), memory.end());
    auto& header = *reinterpret_cast<ImageHeader*>(memory.data());
    std::string leftovers;
    const auto refused = [&](const char* words, const std::function<void()>& damage) {
      damage();
      const std::string said = adopted(memory, leftovers);
      if (!CHECK(said.find("refused: ") == 0 && said.find(words) != said.npos)) std::fprintf(stderr, "  wanted %s, got %s\n", words, said.c_str());
      std::memcpy(memory.data(), good.data(), good.size());
    };
    auto* const table = reinterpret_cast<NodeRecord*>(memory.data() + header.nodesOffset);
    auto& web = table[world.web & slotMask];
    auto& file = table[world.fileA & slotMask];
    refused("no image of inro", [&] { header.magic[0] = 'X'; });
    refused("layout 1, this program knows layouts 2 to 4", [&] { header.layout = 1; });
    refused("layout 5, this program knows layouts 2 to 4", [&] { header.layout = 5; });
    refused("noted for a successor", [&] { header.keptNote = 64; });
    refused("noted for a successor", [&] { header.keptNote = memory.size() - 8; });
    refused("noted for a successor", [&] { *reinterpret_cast<std::uint64_t*>(memory.data() + header.keptNote) = 8; });
    refused("noted for a successor", [&] { *reinterpret_cast<std::uint64_t*>(memory.data() + header.keptNote) = heapBytes; });
    refused("overlap", [&] { header.keptNote = web.content.load(); });
    refused("contradict", [&] { header.imageBytes += 4096; });
    refused("contradict", [&] { header.nodeCapacity = ~std::uint64_t{0}; });
    refused("not where they must be", [&] { header.heapOffset += 64; });
    refused("counters", [&] { header.nextSerial = maxSerial + 2; });
    refused("journal is longer", [&] { header.journalLength = journalCapacity + 1; });
    refused("journal writes", [&] {
      header.journalLength = 1;
      reinterpret_cast<JournalStore*>(memory.data() + header.journalOffset)->offset = 8;  // the header itself
    });
    refused("journal writes", [&] {
      header.journalLength = 1;
      reinterpret_cast<JournalStore*>(memory.data() + header.journalOffset)->offset = ~std::uint64_t{7};
    });
    refused("not in its place", [&] { file.id = file.id + 1; });
    refused("not in its place", [&] { file.id = (header.nextSerial << slotBits) | (file.id & slotMask); });
    refused("of no kind", [&] { file.kind = 77; });
    refused("mode of another kind", [&] { file.kind = static_cast<std::uint32_t>(NodeKind::link); });
    refused("outside of the heap", [&] { file.content = 64; });
    refused("outside of the heap", [&] { file.size = ~std::uint64_t{0}; });
    refused("outside of the heap", [&] { file.content = memory.size() - 32; });
    refused("is closed", [&] { header.closed = 1; });
    refused("counters", [&] { header.nextCookie = ~std::uint64_t{0}; });
    refused("counters", [&] { header.nextHandle = 0; });
    refused("counters", [&] { header.slotsUsed = nodes + 1; });
    refused("counters", [&] { header.slotsUsed = 1; });
    refused("counters", [&] { header.heapUsed = heapBytes + 64; });
    refused("counters", [&] { header.accessTail = 1; });
    refused("counters", [&] { header.accessHead = accessCapacity + 1; });
    refused("gate of node", [&] { web.gate = 64; });
    refused("gate of node", [&] { web.gate = memory.size() - 8; });
    refused("gate of node", [&] { web.gate = table[world.fileB & slotMask].content.load(); });
    refused("is no directory", [&] { table[world.fileB & slotMask].gate = web.content.load(); });
    refused("counters", [&] { header.heapUsed = header.heapUsed + 1; });
    refused("outside of the heap", [&] { header.heapUsed = 0; });
    refused("not in its place", [&] { table[0].id = std::uint64_t{1} << slotBits; });
    refused("root directory", [&] { table[rootNode].kind = 3, table[rootNode].mode = S_IFREG | 0400, table[rootNode].content = 0; });
    // One stretch as a directory and as a value: when the value is wiped and its place given out again, the directory would be anything.
    refused("overlaps", [&] { file.content = web.content.load(); });
    refused("overlaps", [&] { web.content = table[world.task & slotMask].content.load(); });
    refused("overlaps", [&] { file.content = table[world.fileB & slotMask].content + 64, file.size = 200; });
    refused("no root", [&] { table[rootNode].id = 0; });
    auto* const block = reinterpret_cast<DirectoryBlock*>(memory.data() + web.content);
    refused("leaves the heap", [&] { block->bytes = ~std::uint64_t{0}; });
    refused("is cut", [&] { block->count = 1000; });
    refused("is cut", [&] { Image::firstEntry(block)->nameBytes = 256; });
    refused("a name twice", [&] { *reinterpret_cast<char*>(Image::firstEntry(block) + 1) = 'b'; });
    refused("out of order", [&] { Image::firstEntry(block)->cookie = 0; });
    refused("impossible name", [&] { *reinterpret_cast<char*>(Image::firstEntry(block) + 1) = '/'; });
    const std::string cut = adopted(memory.first(memory.size() - 4096), leftovers);
    CHECK(cut.find("refused: ") == 0);
    CHECK(adopted(memory.first(4096), leftovers).find("refused: ") == 0);
    CHECK_IS(adopted(memory, leftovers), oldState);
  });

  run("a refusal leaves the memory as it was", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    auto* const table = reinterpret_cast<NodeRecord*>(memory.data() + layoutOf(nodes).nodesOffset);
    table[world.fileA & slotMask].content = table[world.web & slotMask].content.load();
    const std::vector<std::byte> before(memory.begin(), memory.end());
    std::string error;
    CHECK(!Core::adopt(LockedMapping::borrow(memory), error));
    CHECK(std::memcmp(before.data(), memory.data(), memory.size()) == 0);
  });

  run("what is at the edge of possible is adopted", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    Builder build(*world.core);
    // Nodes show stretches of different length of one value; a value is empty; no id is left.
    const auto empty = world.core->alloc(1)->id;
    const auto part = build.file(world.oldB, 3);
    build.fill(world.web, {{"a", world.fileA}, {"part", part}, {"b", world.fileB}, {"empty", build.file(empty, 0)}});
    build.step.made.back().skip = 0;
    CHECK_IS(build.commit(), "");
    world.core->nodes().image().header().nextSerial = maxSerial + 1;
    const auto used = world.core->use();
    std::string error;
    auto core = Core::adopt(LockedMapping::borrow(memory), error);
    CHECK_IS(error, "");
    if (!core) return;
    CHECK_IS(core->use().usedBytes, used.usedBytes);
    CHECK(!core->reserve());
    Kernel kernel(*core);
    CHECK_IS(kernel.content("web/part"), "old");
    CHECK_IS(kernel.content("web/b"), "old-b-old-b-old-b");
    CHECK_IS(kernel.content("web/empty"), "");
    const auto piece = core->find(memory.data() + core->nodes().image().find(world.fileB)->content);
    CHECK(piece && core->release(*piece) == Released::done);
    CHECK_IS(kernel.content("web/part"), "errno 116");
  });

  run("an adoption touches no page that was never used", [] {
    constexpr std::size_t manyNodes = 131'072;
    constexpr std::size_t manyBytes = 32 << 20;
    const std::size_t bytes = layoutOf(manyNodes).heapOffset + manyBytes;
    auto* const start = static_cast<std::byte*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const std::span<std::byte> memory(start, bytes);
    std::string error;
    {
      auto core = Core::createOn(LockedMapping::borrow(memory), {manyBytes, true, manyNodes, 0, 0}, error);
      Builder build(*core);
      build.fill(rootNode, {{"key", build.file("value")}});
      CHECK_IS(build.commit(), "");
      CHECK(Core::adopt(LockedMapping::borrow(memory), error) != nullptr);
    }
    std::vector<unsigned char> pages(bytes / 4096);
    CHECK(mincore(start, bytes, pages.data()) == 0);
    CHECK(std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; }) < 80);  // 32 are the poll table
    munmap(start, bytes);
  });

  run("killed at any instruction of a step, the old state or the new one is there", [] {
    bool sawNew = false;
    atEachInstruction(
        [](World& world) {
          Builder build(*world.core);
          const auto a = build.file("new-a-new-a-new-a");
          const auto b = build.file("new-b-new-b-new-b");
          for (const auto directory : {world.web, world.task}) build.fill(directory, {{"a", a}, {"b", b}});
          build.step.superseded = {world.fileA, world.fileB};
          build.step.readableUntilMs = forEver;
          build.commit();
        },
        [&](const std::string& state, const std::string& leftovers) {
          CHECK(state == oldState || state == newState);
          if (state == oldState) {
            CHECK(!sawNew);
            CHECK_IS(leftovers, "old-a-old-a old-b-old-b ");
          } else {
            sawNew = true;
            // The old versions may still be open.
            CHECK_IS(leftovers, "old-a-old-a old-b-old-b new-a-new-a new-b-new-b ");
          }
        });
    CHECK(sawNew);
  });

  run("killed at any instruction while a note takes another one's place, one of them is there", [] {
    bool sawSecond = false;
    atEachInstruction([](World& world) { keepNote(*world.core, "first note"); },
                      [](World& world) { keepNote(*world.core, "second note"); },
                      [&](const std::string& state, const std::string& leftovers) {
                        CHECK_IS(state, oldState);
                        sawSecond = sawSecond || leftovers.find("second") != leftovers.npos;
                        CHECK_IS(leftovers, std::string("old-a-old-a old-b-old-b ") + (sawSecond ? "second note " : "first note "));
                      });
    CHECK(sawSecond);
  });

  run("a note is kept until another one comes, or none, or there is no room", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    const auto used = world.core->use().usedBytes;
    keepNote(*world.core, "first note");
    std::string error;
    const auto core = Core::adopt(LockedMapping::borrow(memory), error);
    CHECK_IS(std::string(core->nodes().image().keptNote()), "first note");
    keepNote(*core, "");
    CHECK_IS(std::string(core->nodes().image().keptNote()), "");
    CHECK_IS(core->use().usedBytes, used);
    keepNote(*core, "second note");
    CHECK(!core->keepNote(std::vector<std::byte>(heapBytes)));
    CHECK_IS(std::string(core->nodes().image().keptNote()), "");
    core->wipe();
    CHECK(!core->keepNote(std::vector<std::byte>(8)));
  });

  run("an image of the layout before is taken over, and has this one from then on", [] {
    const auto memory = sharedMemory();
    World world = populated(memory);
    auto& header = *reinterpret_cast<ImageHeader*>(memory.data());
    header.layout = oldestImageLayout;
    std::string error;
    const auto core = Core::adopt(LockedMapping::borrow(memory), error);
    CHECK_IS(error, "");
    CHECK_IS(header.layout, imageLayout);
  });

  run("killed at any instruction of a wipe, the value is whole or gone", [] {
    bool isGone = false;
    atEachInstruction([](World& world) { world.core->release(world.oldA); },
                      [&](const std::string& state, const std::string& leftovers) {
                        const bool gone = state == "ENOENT old-b-old-b-old-b ENOENT old-b-old-b-old-b ";
                        CHECK(gone || (state == oldState && !isGone));
                        CHECK_IS(leftovers, gone ? "old-b-old-b " : "old-a-old-a old-b-old-b ");
                        isGone = isGone || gone;
                      });
    CHECK(isGone);
  });

  run("killed at any instruction of a wipe, all nodes that show the value lose it, or none", [] {
    bool isGone = false;
    atEachInstruction(
        [](World& world) {
          Builder build(*world.core);
          build.fill(world.task, {{"a", build.file(world.oldA, 17)}, {"b", build.file(world.oldA, 17)}});
          build.commit();
        },
        [](World& world) { world.core->release(world.oldA); },
        [&](const std::string& state, const std::string&) {
          const bool gone = state == "ENOENT old-b-old-b-old-b ENOENT ENOENT ";
          CHECK(gone || (!isGone && state == "old-a-old-a-old-a old-b-old-b-old-b old-a-old-a-old-a old-a-old-a-old-a "));
          isGone = isGone || gone;
        });
    CHECK(isGone);
  });

  run("killed at any instruction of a step that replaces and cuts off, the old state or the new one is there", [] {
    const std::string after = "new-a-new-a-new-a ENOENT ENOENT ENOENT ";
    bool isNew = false;
    atEachInstruction(
        [](World& world) {
          Builder build(*world.core);
          build.fill(world.web, {{"a", build.file("new-a-new-a-new-a")}});
          build.step.removed = {{rootNode, "task"}};
          build.step.gone = {world.fileA, world.fileB, world.task};
          build.commit();
        },
        [&](const std::string& state, const std::string& leftovers) {
          CHECK(state == after || (!isNew && state == oldState));
          isNew = isNew || state == after;
          CHECK_IS(leftovers, isNew ? "new-a-new-a " : "old-a-old-a old-b-old-b ");
        });
    CHECK(isNew);
  });

  run("killed at any instruction of a withdrawal, what is cut off does not come back", [] {
    bool aIsGone = false;
    bool bIsGone = false;
    atEachInstruction(
        [](World& world) {
          Builder build(*world.core);
          build.fill(world.web, {});
          build.step.removed = {{rootNode, "task"}};
          build.step.gone = {world.fileA, world.fileB, world.task};
          build.commit();
        },
        [&](const std::string& state, const std::string&) {
          CHECK(state.find("refused") == state.npos);
          const bool a = state.find("old-a") != state.npos;
          const bool b = state.find("old-b") != state.npos;
          CHECK(!(a && aIsGone));
          CHECK(!(b && bIsGone));
          aIsGone = aIsGone || !a;
          bIsGone = bIsGone || !b;
        });
    CHECK(aIsGone && bIsGone);
  });
  run("killed at any instruction of an adoption, the next one finds the same", [] {
    atEachInstruction(
        [](World& world) {
          Builder build(*world.core);
          build.value("new-a-new-a-new-a");  // shown by nobody
          build.file("new-b-new-b-new-b");   // by a file without a name
          build.commit();
          // A step whose journal was not carried out yet.
          const Image& image = world.core->nodes().image();
          const auto& entry = *Image::firstEntry(image.block(*image.find(world.web)));
          image.journal()[0] = {image.offsetOf(entry.node), world.fileB};
          image.journal()[1] = {image.offsetOf(image.find(world.web)->modifiedMs), 5};
          image.header().journalLength = 2;
        },
        [](World& world) {
          std::string error;
          (void)Core::adopt(LockedMapping::borrow(world.core->mapping().bytes()), error).release();
        },
        [](const std::string& state, const std::string& leftovers) {
          CHECK_IS(state, "old-b-old-b-old-b old-b-old-b-old-b old-a-old-a-old-a old-b-old-b-old-b ");
          CHECK_IS(leftovers, "old-a-old-a old-b-old-b ");
        });
  });
  return result();
}
