#include "image.h"

#include <sys/stat.h>

#include <cstring>
#include <string_view>
#include <unordered_set>

#include "arena.h"

namespace inro {
namespace {

constexpr std::size_t pageBytes = 4096;
constexpr std::uint64_t maxCounter = std::uint64_t{1} << 62;  // further than anybody counts, and no negative position to the kernel

constexpr std::size_t wholePages(std::size_t bytes) { return (bytes + pageBytes - 1) / pageBytes * pageBytes; }

// Whether `bytes` bytes at `offset` lie within `size`, without an overflow.
constexpr bool within(std::uint64_t offset, std::uint64_t bytes, std::uint64_t size) {
  return offset <= size && bytes <= size - offset;
}

}  // namespace

ImageLayout layoutOf(std::size_t nodeCapacity) {
  ImageLayout layout{};
  layout.pollsOffset = wholePages(sizeof(ImageHeader));
  layout.nodesOffset = layout.pollsOffset + wholePages(pollCapacity * sizeof(PollRecord));
  layout.journalOffset = layout.nodesOffset + wholePages(nodeCapacity * sizeof(NodeRecord));
  layout.accessesOffset = layout.journalOffset + wholePages(journalCapacity * sizeof(JournalStore));
  layout.heapOffset =
      layout.accessesOffset + wholePages(accessCapacity * sizeof(AccessRecord) + accessCountCapacity * sizeof(AccessCount));
  return layout;
}

Image Image::format(std::span<std::byte> memory, std::size_t nodeCapacity, std::uint32_t rootMode, std::uint32_t uid,
                    std::uint32_t gid, std::uint64_t nowMs) {
  const Image image(memory);
  const ImageLayout layout = layoutOf(nodeCapacity);
  ImageHeader& header = image.header();
  header.layout = imageLayout;
  header.headerBytes = sizeof(ImageHeader);
  header.imageBytes = memory.size();
  header.nodeCapacity = nodeCapacity;
  header.pollsOffset = layout.pollsOffset;
  header.nodesOffset = layout.nodesOffset;
  header.journalOffset = layout.journalOffset;
  header.accessesOffset = layout.accessesOffset;
  header.heapOffset = layout.heapOffset;
  header.nextSerial = 2;  // a serial is what stat(2) shows for an inode: 1 is the root's
  header.nextCookie = 3;  // 1 and 2 are `.` and `..`
  header.nextHandle = 1;
  header.slotsUsed = firstFreeSlot;
  NodeRecord& root = image.nodes()[rootNode];
  root.kind = static_cast<std::uint32_t>(NodeKind::directory);
  root.mode = S_IFDIR | rootMode;
  root.uid = uid;
  root.gid = gid;
  root.parent = rootNode;
  root.modifiedMs = nowMs;
  root.id = rootNode;
  // Last: before this it is no image.
  std::memcpy(header.magic, imageMagic, sizeof imageMagic);
  return image;
}

std::optional<Image> Image::open(std::span<std::byte> memory, std::string& error) {
  const Image image(memory);
  if (!image.checkHeader(error) || !image.checkJournal(error)) return std::nullopt;
  image.replay();
  const auto nodes = image.nodes();
  for (std::size_t slot = 0; slot < nodes.size(); slot++) {
    if (nodes[slot].id != 0 && !image.checkNode(nodes[slot], slot, error)) return std::nullopt;
  }
  if (!image.checkKeptNote(error)) return std::nullopt;
  const NodeRecord* const root = image.find(rootNode);
  if (root == nullptr || !S_ISDIR(root->mode)) {
    error = "the image is damaged: it has no root directory";
    return std::nullopt;
  }
  return image;
}

bool Image::isImage(std::span<std::byte> memory, std::string& error) { return Image(memory).checkHeader(error); }

std::span<NodeRecord> Image::nodes() const {
  return {reinterpret_cast<NodeRecord*>(memory_.data() + header().nodesOffset), header().slotsUsed.load(std::memory_order_acquire)};
}

std::span<PollRecord> Image::polls() const {
  return {reinterpret_cast<PollRecord*>(memory_.data() + header().pollsOffset), pollCapacity};
}

std::span<JournalStore> Image::journal() const {
  return {reinterpret_cast<JournalStore*>(memory_.data() + header().journalOffset), journalCapacity};
}

std::span<AccessRecord> Image::accesses() const {
  return {reinterpret_cast<AccessRecord*>(memory_.data() + header().accessesOffset), accessCapacity};
}

std::span<AccessCount> Image::accessCounts() const {
  return {reinterpret_cast<AccessCount*>(memory_.data() + header().accessesOffset + accessCapacity * sizeof(AccessRecord)),
          accessCountCapacity};
}

NodeRecord* Image::find(std::uint64_t id) const {
  const std::uint64_t slot = id & slotMask;
  const auto used = nodes();
  if (id == 0 || slot >= used.size()) return nullptr;
  return used[slot].id.load(std::memory_order_acquire) == id ? &used[slot] : nullptr;
}

DirectoryBlock* Image::block(const NodeRecord& directory) const {
  const std::uint64_t offset = directory.content.load(std::memory_order_acquire);
  return offset == 0 ? nullptr : reinterpret_cast<DirectoryBlock*>(memory_.data() + offset);
}

void Image::replay() const {
  const std::uint64_t length = header().journalLength.load(std::memory_order_acquire);
  for (const JournalStore& store : journal().first(length)) {
    reinterpret_cast<Word*>(memory_.data() + store.offset)->store(store.value, std::memory_order_release);
  }
  header().journalLength.store(0, std::memory_order_release);
}

const GateBlock* Image::gate(const NodeRecord& directory) const {
  const std::uint64_t offset = directory.gate.load(std::memory_order_acquire);
  return offset == gateOpen || offset == gateShut ? nullptr : reinterpret_cast<const GateBlock*>(memory_.data() + offset);
}

std::string_view Image::gateNote(const NodeRecord& directory) const {
  const GateBlock* const block = gate(directory);
  if (block == nullptr) return {};
  return {reinterpret_cast<const char*>(block) + block->bytes - block->noteBytes, block->noteBytes};
}

std::string_view Image::keptNote() const {
  const std::uint64_t offset = header().keptNote.load(std::memory_order_acquire);
  if (offset == 0) return {};
  const auto* const block = reinterpret_cast<const NoteBlock*>(memory_.data() + offset);
  return {reinterpret_cast<const char*>(block + 1), block->bytes - sizeof(NoteBlock)};
}

std::string_view Image::note(const NodeRecord& node) const {
  if (node.note == 0) return {};
  return {reinterpret_cast<const char*>(memory_.data()) + node.note, node.noteBytes};
}

bool Image::checkHeader(std::string& error) const {
  if (memory_.size() < pageBytes || std::memcmp(header().magic, imageMagic, sizeof imageMagic) != 0) {
    error = "this is no image of inro";
    return false;
  }
  const ImageHeader& it = header();
  if (it.layout < oldestImageLayout || it.layout > imageLayout || it.headerBytes != sizeof(ImageHeader)) {
    error = "the image has layout " + std::to_string(it.layout) + ", this program knows layouts " +
            std::to_string(oldestImageLayout) + " to " + std::to_string(imageLayout);
    return false;
  }
  if (it.imageBytes != memory_.size() || it.nodeCapacity < firstFreeSlot || it.nodeCapacity > maxNodes) {
    error = "the image is cut or damaged: its sizes contradict each other";
    return false;
  }
  const ImageLayout layout = layoutOf(it.nodeCapacity);
  if (it.pollsOffset != layout.pollsOffset || it.nodesOffset != layout.nodesOffset ||
      it.journalOffset != layout.journalOffset || it.accessesOffset != layout.accessesOffset || it.heapOffset != layout.heapOffset || it.heapOffset >= memory_.size()) {
    error = "the image is damaged: its parts are not where they must be";
    return false;
  }
  if (it.nextSerial < 2 || it.nextSerial > maxSerial + 1 || it.nextCookie < 3 || it.nextCookie > maxCounter ||
      it.nextHandle == 0 || it.nextHandle > maxCounter || it.slotsUsed < firstFreeSlot || it.slotsUsed > it.nodeCapacity ||
      it.accessHead > maxCounter || it.accessTail > it.accessHead || it.accessHead - it.accessTail > accessCapacity ||
      it.heapUsed > memory_.size() - it.heapOffset || it.heapUsed % Arena::granuleBytes != 0) {
    error = "the image is damaged: its counters are impossible";
    return false;
  }
  if (it.closed != 0) {
    error = "the image is closed: its values were wiped";
    return false;
  }
  return true;
}

bool Image::checkJournal(std::string& error) const {
  const std::uint64_t length = header().journalLength;
  if (length > journalCapacity) {
    error = "the image is damaged: its journal is longer than it can be";
    return false;
  }
  for (const JournalStore& store : journal().first(length)) {
    const bool inNodes = store.offset % sizeof(Word) == 0 && store.offset >= header().nodesOffset &&
                         store.offset < header().nodesOffset + header().slotsUsed * sizeof(NodeRecord);
    if (!inNodes && !inHeap(store.offset, sizeof(Word))) {
      error = "the image is damaged: its journal writes where it must not";
      return false;
    }
  }
  return true;
}

bool Image::inHeap(std::uint64_t offset, std::uint64_t bytes) const {
  return offset % sizeof(Word) == 0 && offset >= header().heapOffset &&
         within(offset, bytes, header().heapOffset + header().heapUsed);
}

bool Image::checkNode(const NodeRecord& node, std::size_t slot, std::string& error) const {
  const auto wrong = [&](const char* what) {
    error = "the image is damaged: node " + std::to_string(node.id.load()) + " " + what;
    return false;
  };
  if (slot < rootNode || (node.id & slotMask) != slot || (node.id >> slotBits) >= header().nextSerial)
    return wrong("is not in its place");
  if (node.note == 0 ? node.noteBytes != 0 : node.noteBytes == 0 || node.noteBytes > maxNoteBytes || !inHeap(node.note, node.noteBytes))
    return wrong("has a note outside of the heap");
  const auto kind = static_cast<NodeKind>(node.kind);
  if (kind != NodeKind::directory && node.gate != gateOpen) return wrong("has a gate and is no directory");
  const std::uint64_t content = node.content;
  switch (kind) {
    case NodeKind::directory:
      if (!S_ISDIR(node.mode)) return wrong("has a mode of another kind");
      return (content == 0 || checkBlock(node, error)) && checkGate(node, error);
    case NodeKind::link:
      if (!S_ISLNK(node.mode)) return wrong("has a mode of another kind");
      if (node.size == 0 || node.size > maxLinkBytes || !inHeap(content, node.size)) return wrong("has no text");
      return true;
    case NodeKind::file:
      if (!S_ISREG(node.mode)) return wrong("has a mode of another kind");
      if (content != 0 && (node.skip > maxSkipBytes || node.size > memory_.size() || !inHeap(content, node.skip + node.size)))
        return wrong("has a value outside of the heap");
      return true;
  }
  return wrong("is of no kind");
}

bool Image::checkBlock(const NodeRecord& directory, std::string& error) const {
  const auto wrong = [&](const char* what) {
    error = "the image is damaged: the directory of node " + std::to_string(directory.id.load()) + " " + what;
    return false;
  };
  const std::uint64_t offset = directory.content;
  if (!inHeap(offset, sizeof(DirectoryBlock))) return wrong("is outside of the heap");
  DirectoryBlock* const block = this->block(directory);
  if (block->bytes < sizeof(DirectoryBlock) || !inHeap(offset, block->bytes)) return wrong("leaves the heap");
  std::uint64_t left = block->bytes - sizeof(DirectoryBlock);
  std::uint64_t lastCookie = 2;
  std::unordered_set<std::string_view> names;
  DirectoryEntry* entry = firstEntry(block);
  for (std::uint32_t i = 0; i < block->count; i++, entry = nextEntry(entry)) {
    if (left < sizeof(DirectoryEntry) || entry->nameBytes == 0 || entry->nameBytes > maxNameBytes || left < entry->bytes())
      return wrong("is cut");
    if (entry->cookie <= lastCookie || entry->cookie >= header().nextCookie) return wrong("is out of order");
    lastCookie = entry->cookie;
    const std::string_view name(entry->name(), entry->nameBytes);
    if (name.find('/') != name.npos || name.find('\0') != name.npos || name == "." || name == "..")
      return wrong("holds an impossible name");
    if (entry->node != 0 && !names.insert(name).second) return wrong("holds a name twice");
    left -= entry->bytes();
  }
  return true;
}

bool Image::checkGate(const NodeRecord& directory, std::string& error) const {
  const auto wrong = [&](const char* what) {
    error = "the image is damaged: the gate of node " + std::to_string(directory.id.load()) + " " + what;
    return false;
  };
  const std::uint64_t offset = directory.gate;
  if (offset == gateOpen || offset == gateShut) return true;
  if (!inHeap(offset, sizeof(GateBlock))) return wrong("is outside of the heap");
  const GateBlock* const block = gate(directory);
  if (block->bytes < sizeof(GateBlock) || !inHeap(offset, block->bytes)) return wrong("leaves the heap");
  std::uint64_t left = block->bytes - sizeof(GateBlock);
  const GateEntry* entry = firstEntry(block);
  for (std::uint32_t i = 0; i < block->count; i++, entry = nextEntry(entry)) {
    if (left < sizeof(GateEntry) || entry->pathBytes > maxCgroupPathBytes || left < entry->bytes()) return wrong("is cut");
    left -= entry->bytes();
  }
  return left == block->noteBytes || wrong("has another length than it says");
}

bool Image::checkKeptNote(std::string& error) const {
  const std::uint64_t offset = header().keptNote;
  if (offset == 0) return true;
  if (inHeap(offset, sizeof(NoteBlock))) {
    const std::uint64_t bytes = reinterpret_cast<const NoteBlock*>(memory_.data() + offset)->bytes;
    if (bytes > sizeof(NoteBlock) && bytes <= sizeof(NoteBlock) + maxNoteBytes && inHeap(offset, bytes)) return true;
  }
  error = "the image is damaged: what is noted for a successor is outside of the heap";
  return false;
}

}  // namespace inro
