// Writes what the fuzzers begin with: a valid request of each kind, and an image for each field with something wrong in it.
//   seeds fuzz_request|fuzz_image FOLDER
#include <filesystem>
#include <fstream>
#include <limits>

#include "fuzz_image.h"
#include "fuzz_request.h"

using namespace inro;
using namespace inro::test;

namespace {

class Folder {
 public:
  explicit Folder(std::string path) : path_(std::move(path)) { std::filesystem::create_directories(path_); }
  void write(const std::string& seed) { std::ofstream(path_ + "/seed-" + std::to_string(count_++), std::ios::binary) << seed; }

 private:
  std::string path_;
  int count_ = 0;
};

std::uint8_t code(fuse::Opcode opcode) { return static_cast<std::uint8_t>(opcode); }
std::uint8_t code(FuzzChange change) { return static_cast<std::uint8_t>(change); }

std::string readOf(std::uint64_t offset, std::uint32_t size, std::uint32_t flags = fuse::readLockOwner) {
  fuse::ReadIn in{};
  in.offset = offset;
  in.size = size;
  in.readFlags = flags;
  return Kernel::flat(in);
}

std::string pollOf(std::uint64_t handle, std::uint64_t kernelHandle, std::uint32_t flags) {
  return Kernel::flat(fuse::PollIn{handle, kernelHandle, flags, 0});
}

void requests(Folder folder) {
  using fuse::Opcode;
  constexpr std::uint64_t farAway = std::uint64_t{1} << 63;
  // The world of fuzz_request: 1 the root, 2 `web`, 3 `link`, 4 `mapped`, 5 and 6 the files of `web`.
  constexpr std::uint8_t root = 1, web = 2, link = 3, mapped = 4, file = 5;
  const auto nul = [](std::string name) { return name + '\0'; };
  for (std::uint8_t opcode = 0; opcode < fuzzOpcodes; opcode++) folder.write(one(opcode, file, std::string(64, '\0')));
  for (const std::uint8_t node : {root, web, file, std::uint8_t{20}}) {
    for (const char* name : {"web", "key", "..", ""}) folder.write(one(code(Opcode::lookup), node, nul(name)));
    for (const std::size_t length : {255, 256, 1024}) folder.write(one(code(Opcode::lookup), node, nul(std::string(length, 'n'))));
    folder.write(one(code(Opcode::lookup), node, "no end"));
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{3}, farAway, ~std::uint64_t{0}}) {
      for (const std::uint32_t size : {0U, 24U, 4096U, 0xffffffffU}) {
        folder.write(one(code(Opcode::readdir), node, readOf(offset, size)));
        folder.write(one(code(Opcode::read), node, readOf(offset, size)));
      }
    }
  }
  folder.write(one(code(Opcode::read), file, readOf(0, 4096, 0)) + one(code(Opcode::read), mapped, readOf(0, 4096, 0)));
  folder.write(one(code(Opcode::readlink), link));
  folder.write(one(code(Opcode::open), file, Kernel::flat(fuse::OpenIn{2, 0})));
  folder.write(one(code(Opcode::poll), file, pollOf(1, 1, fuse::pollScheduleNotify)) + one(code(FuzzChange::publish), 0) +
               one(code(Opcode::release), file, Kernel::flat(fuse::ReleaseIn{1, 0, 0, 0})));
  folder.write(one(code(Opcode::poll), file, pollOf(1, 0, fuse::pollScheduleNotify)));
  for (const std::uint32_t minor : {0U, 8U, 23U, 31U, 38U, 45U, 99U}) {
    for (const std::uint32_t major : {6U, 7U, 8U}) {
      folder.write(one(code(Opcode::init), 0, Kernel::initBody(minor, major)));
      folder.write(one(code(Opcode::init), 0, Kernel::initBody(minor, major).substr(0, fuse::initInOldBytes)));
    }
  }
  for (const FuzzLength length : {FuzzLength::tooLong, FuzzLength::cut})
    folder.write(one(code(Opcode::read), file, readOf(0, 4096), length) + one(code(Opcode::forget), file, "12345678", length));
  std::string story;
  for (const FuzzChange change : {FuzzChange::publish, FuzzChange::wipe, FuzzChange::withdraw, FuzzChange::leaseEnds, FuzzChange::leaseBegins}) {
    folder.write(one(code(change), 0, "-") + one(code(Opcode::read), file, readOf(0, 4096)) + one(code(Opcode::readdir), web, readOf(0, 4096)));
    story += one(code(change), 0, "-") + one(code(Opcode::lookup), web, nul("key")) + one(code(Opcode::read), file, readOf(0, 4096));
  }
  folder.write(story);
}

void images(Folder folder) {
  folder.write(patch(0, 0, "INRO"));  // as it is
  const auto parts = fuzzParts();
  const auto word = [](std::uint64_t value) { return Kernel::flat(value); };
  const auto good = goodImage();
  for (std::size_t part = 0; part < parts.size(); part++) {
    for (std::size_t place = 0; place + 8 <= std::min<std::size_t>(parts[part].bytes, 1024); place += 8) {
      std::uint64_t now = 0;
      std::memcpy(&now, good.data() + parts[part].offset + place, sizeof now);
      for (const std::uint64_t value : {std::uint64_t{0}, now + 1, now + 64, now ^ (std::uint64_t{1} << 32), std::numeric_limits<std::uint64_t>::max()})
        folder.write(patch(part, place, word(value)));
    }
  }
  // Nodes that show another one's stretch.
  const auto records = parts[2];
  for (std::size_t from = 1; from < 9; from++) {
    for (std::size_t to = 1; to < 9; to++) {
      const std::size_t content = offsetof(NodeRecord, content);
      std::uint64_t offset = 0;
      std::memcpy(&offset, good.data() + records.offset + from * sizeof(NodeRecord) + content, sizeof offset);
      folder.write(patch(2, to * sizeof(NodeRecord) + content, word(offset)));
    }
  }
  // Nodes that end with another one's block.
  for (std::size_t from = 1; from < 9; from++) {
    for (std::size_t to = 1; to < 9; to++) {
      std::uint64_t offset = 0;
      std::memcpy(&offset, good.data() + records.offset + from * sizeof(NodeRecord) + offsetof(NodeRecord, content), sizeof offset);
      for (const std::size_t place : {offsetof(NodeRecord, gate), offsetof(NodeRecord, note)})
        folder.write(patch(2, to * sizeof(NodeRecord) + place, word(offset)));
    }
  }
  // No room for another node, and no serial number for one.
  for (std::uint64_t capacity = firstFreeSlot; capacity < fuzzNodes; capacity++)
    folder.write(patch(0, offsetof(ImageHeader, nodeCapacity), word(capacity)));
  for (const std::uint64_t serial : {maxSerial - 1, maxSerial, maxSerial + 1})
    folder.write(patch(0, offsetof(ImageHeader, nextSerial), word(serial)));
  // A journal that makes and ends nodes.
  const std::size_t journalLength = offsetof(ImageHeader, journalLength);
  folder.write(patch(0, journalLength, word(2)) + patch(3, 16, word(layoutOf(fuzzNodes).nodesOffset + 3 * sizeof(NodeRecord)) + word(0)));
  folder.write(patch(0, journalLength, word(3)) + patch(3, 32, word(layoutOf(fuzzNodes).heapOffset) + word(~std::uint64_t{0})));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view which = argc == 3 ? argv[1] : "";
  if (which == "fuzz_request") requests(Folder(argv[2]));
  else if (which == "fuzz_image") images(Folder(argv[2]));
  else return 2;
  return 0;
}
