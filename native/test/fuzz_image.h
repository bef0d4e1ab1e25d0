// What fuzz_image reads and seeds.cc writes: a list of places in a good image and what to put there.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "world.h"

namespace inro::test {

constexpr std::size_t fuzzNodes = 16;
constexpr std::size_t fuzzHeapBytes = 8 * 1024;

// A patch is: which part, the place in it (two bytes), how many bytes (1 to 16), the bytes.
constexpr std::size_t patchHeaderBytes = 4;
constexpr std::size_t maxPatchBytes = 16;

struct FuzzPart {
  std::size_t offset;
  std::size_t bytes;
};

// Places are drawn towards what there is: the poll table's beginning, the nodes, the journal's beginning, what the heap holds.
inline std::array<FuzzPart, 6> fuzzParts() {
  const ImageLayout layout = layoutOf(fuzzNodes);
  return {FuzzPart{0, sizeof(ImageHeader)}, FuzzPart{layout.pollsOffset, 256}, FuzzPart{layout.nodesOffset, fuzzNodes * sizeof(NodeRecord)},
          FuzzPart{layout.journalOffset, 128}, FuzzPart{layout.heapOffset, 2048}, FuzzPart{layout.accessesOffset, 256}};
}

inline std::string patch(std::size_t part, std::size_t place, std::string_view bytes) {
  const std::string header{static_cast<char>(part), static_cast<char>(place & 0xff), static_cast<char>(place >> 8),
                           static_cast<char>(bytes.size() - 1)};
  return header + std::string(bytes);
}

inline std::vector<std::byte> goodImage() {
  std::string error;
  auto core = Core::create({fuzzHeapBytes, true, fuzzNodes, 0, 0}, error);
  if (!core) std::abort();
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
  build.step.made.back().gated = web;
  build.step.gatings.push_back({web, false, {{10, "/docker/a"}, {11, "/docker/b"}}, "note"});
  build.step.superseded = {old};
  build.step.readableUntilMs = forEver;
  build.commit();
  kernel.poll(web, 5, 6);
  kernel.open(kernel.walk("web/key"));
  core->keepNote(std::as_bytes(std::span("for a successor")));
  // A journal that waits to be carried out.
  const Image& image = core->nodes().image();
  image.journal()[0] = {image.offsetOf(image.find(web)->modifiedMs), 12345};
  const auto memory = core->mapping().bytes();
  std::vector<std::byte> copy(memory.begin(), memory.end());
  reinterpret_cast<ImageHeader*>(copy.data())->journalLength = 1;
  return copy;
}

}  // namespace inro::test
