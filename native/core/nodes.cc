#include "nodes.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string_view>

namespace inro {
namespace {

std::uint32_t typeBits(NodeKind kind) {
  switch (kind) {
    case NodeKind::directory: return S_IFDIR;
    case NodeKind::link: return S_IFLNK;
    case NodeKind::file: return S_IFREG;
  }
  return 0;
}

NodeKind kindOf(const NodeRecord& node) { return static_cast<NodeKind>(node.kind); }

bool overlaps(std::uint64_t id, std::string& error) {
  error = "the image is damaged: the content of node " + std::to_string(id) + " overlaps another's";
  return false;
}

// What a step puts into the journal at most, besides what it takes away.
std::size_t storesOf(const Step& step) {
  return 2 * step.filled.size() + 3 * step.removed.size() + 2 * step.superseded.size() + step.gatings.size();
}

bool isName(const std::string& name) {
  return !name.empty() && name.size() <= maxNameBytes && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

}  // namespace

std::optional<Nodes> Nodes::on(Image image, Arena& arena, std::string& error) {
  Nodes nodes(image, arena);
  if (!nodes.adopt(error)) return std::nullopt;
  return nodes;
}

// What the root reaches, and what stays although it does not.
std::unordered_set<std::uint64_t> Nodes::reached() const {
  std::unordered_set<std::uint64_t> reached;
  std::vector<std::uint64_t> toVisit{rootNode};
  for (const NodeRecord& node : image_.nodes()) {
    if (node.id != 0 && kindOf(node) == NodeKind::directory && (node.flags & nodeKept) != 0) toVisit.push_back(node.id);
  }
  while (!toVisit.empty()) {
    const std::uint64_t id = toVisit.back();
    toVisit.pop_back();
    const NodeRecord* const node = image_.find(id);
    if (node == nullptr || (id != rootNode && (node->flags & nodeGone) != 0)) continue;
    if (!reached.insert(id).second || kindOf(*node) != NodeKind::directory) continue;
    DirectoryBlock* const block = image_.block(*node);
    if (block == nullptr) continue;
    DirectoryEntry* entry = Image::firstEntry(block);
    for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) toVisit.push_back(entry->node);
  }
  return reached;
}

// Keeps what the root reaches, and superseded files, whose descriptors may be open; frees the rest, once nothing can fail any more.
bool Nodes::adopt(std::string& error) {
  const auto reached = this->reached();
  struct Claim {
    std::uint64_t bytes = 0;
    NodeKind kind;
    std::uint64_t node;
  };
  std::unordered_map<std::uint64_t, Claim> claims;  // by offset
  std::vector<NodeRecord*> garbage;
  const auto nodes = image_.nodes();
  for (std::size_t slot = rootNode; slot < nodes.size(); slot++) {
    NodeRecord& node = nodes[slot];
    const std::uint64_t id = node.id;
    const std::uint64_t content = node.content;
    const bool isFile = kindOf(node) == NodeKind::file;
    if (id == 0) {
      if (slot >= firstFreeSlot) freeSlots_.push_back(static_cast<std::uint32_t>(slot));
      continue;
    }
    const bool superseded = isFile && (node.flags & nodeSuperseded) != 0;
    const bool ended = id != rootNode && ((node.flags & nodeGone) != 0 || (isFile && content == 0));
    if ((!reached.contains(id) && !superseded) || ended) {
      garbage.push_back(&node);
      continue;
    }
    used_++;
    if (superseded) superseded_.push_back(id);
    if (node.note != 0) {
      if (!claims.try_emplace(node.note, Claim{node.noteBytes, NodeKind::link, id}).second) return overlaps(id, error);
      blockUsers_[node.note]++;
    }
    if (const GateBlock* const gate = kindOf(node) == NodeKind::directory ? image_.gate(node) : nullptr) {
      if (!claims.try_emplace(node.gate, Claim{gate->bytes, NodeKind::link, id}).second) return overlaps(id, error);
      blockUsers_[node.gate]++;
    }
    if (content == 0) continue;
    const std::uint64_t bytes = isFile                               ? std::max<std::uint64_t>(node.skip + node.size, 1)
                                : kindOf(node) == NodeKind::link     ? node.size
                                                                     : image_.block(node)->bytes;
    // Of a value, every node shows as much as it likes; a block or a text is one node's own.
    const auto [claim, isFirst] = claims.try_emplace(content, Claim{bytes, kindOf(node), id});
    if (!isFirst && (!isFile || claim->second.kind != NodeKind::file)) return overlaps(id, error);
    claim->second.bytes = std::max(claim->second.bytes, bytes);
    if (!isFile) {
      blockUsers_[content]++;
      continue;
    }
    valueUsers_[content].push_back(id);
    if ((node.flags & nodeMappable) != 0) mappableValues_.insert(content);
  }
  if (const std::uint64_t offset = image_.header().keptNote) {
    const std::uint64_t bytes = sizeof(NoteBlock) + image_.keptNote().size();
    if (!claims.try_emplace(offset, Claim{bytes, NodeKind::link, rootNode}).second) return overlaps(rootNode, error);
  }
  for (const auto& [offset, claim] : claims) {
    if (!arena_->claim(offset - image_.header().heapOffset, claim.bytes)) return overlaps(claim.node, error);
  }

  for (NodeRecord* const node : garbage) {
    freeSlots_.push_back(static_cast<std::uint32_t>(node->id & slotMask));
    node->id = 0;
    node->content = 0;
    node->note = node->noteBytes = 0;
    node->gate = gateOpen;
  }
  // From here on older programs refuse it.
  image_.header().layout = imageLayout;
  const auto polls = image_.polls();
  for (std::size_t i = 0; i < polls.size(); i++) {
    if (polls[i].kernelHandle != 0 && !waiters_.emplace(polls[i].kernelHandle, i).second) polls[i].kernelHandle = 0;
  }
  return true;
}

std::optional<std::uint64_t> Nodes::reserve() {
  ImageHeader& header = image_.header();
  if (header.nextSerial > maxSerial) return std::nullopt;
  std::uint64_t slot;
  if (!freeSlots_.empty()) {
    slot = freeSlots_.back();
    freeSlots_.pop_back();
  } else if (header.slotsUsed < header.nodeCapacity) {
    slot = header.slotsUsed++;
  } else {
    return std::nullopt;
  }
  const std::uint64_t id = (header.nextSerial++ << slotBits) | slot;
  reserved_.insert(id);
  return id;
}

void Nodes::giveBack(std::uint64_t id) {
  if (reserved_.erase(id) != 0) freeSlots_.push_back(static_cast<std::uint32_t>(id & slotMask));
}

bool Nodes::checkMade(const Step& step, std::string& error) const {
  std::unordered_set<std::uint64_t> ids;
  for (const NewNode& node : step.made) {
    if (!reserved_.contains(node.id) || !ids.insert(node.id).second) {
      error = "a new node has no id of its own";
      return false;
    }
    const std::size_t room = node.kind == NodeKind::file ? arena_->bytesOf(node.piece).size() : 0;
    const bool fits = node.kind != NodeKind::file || (node.skip <= maxSkipBytes && node.skip <= room && node.size <= room - node.skip);
    const bool hasText = node.kind != NodeKind::link || (!node.text.empty() && node.text.size() <= maxLinkBytes);
    const bool hasValue = node.kind != NodeKind::file || room != 0;
    if ((node.mode & ~07777U) != 0 || !fits || !hasText || !hasValue || node.note.size() > maxNoteBytes) {
      error = "a new node has no content";
      return false;
    }
  }
  return true;
}

bool Nodes::check(const Step& step, std::string& error) const {
  if (!checkMade(step, error)) return false;
  std::unordered_map<std::uint64_t, NodeKind> made;
  for (const NewNode& node : step.made) made.emplace(node.id, node.kind);
  const auto isDirectory = [&](std::uint64_t id) {
    if (const auto known = made.find(id); known != made.end()) return known->second == NodeKind::directory;
    const NodeRecord* const node = image_.find(id);
    return node != nullptr && kindOf(*node) == NodeKind::directory;
  };
  std::unordered_set<std::uint64_t> directories;
  for (const Filling& filling : step.filled) {
    if (!isDirectory(filling.directory) || !directories.insert(filling.directory).second) {
      error = "what is to be filled is no directory, or is filled twice";
      return false;
    }
    std::unordered_set<std::string_view> names;
    for (const auto& [name, id] : filling.entries) {
      if (!isName(name) || (!made.contains(id) && image_.find(id) == nullptr)) {
        error = "a directory entry has no name or no node";
        return false;
      }
      if (!names.insert(name).second) {
        error = "a directory entry has another one's name";
        return false;
      }
    }
  }
  std::unordered_set<std::uint64_t> gated;
  for (const Gating& gating : step.gatings) {
    const bool fits = gating.readers.size() <= maxGateEntries && gating.note.size() <= maxNoteBytes &&
                      std::ranges::all_of(gating.readers, [](const auto& reader) { return reader.path.size() <= maxCgroupPathBytes; });
    if (!isDirectory(gating.directory) || !gated.insert(gating.directory).second || !fits ||
        (gating.open && !gating.readers.empty())) {
      error = "a gate has no directory of its own, or too many readers";
      return false;
    }
  }
  const std::size_t stores = storesOf(step);
  if (stores > journalCapacity) {
    error = "the step changes " + std::to_string(stores) + " places, at most " + std::to_string(journalCapacity) + " are possible";
    return false;
  }
  return true;
}

// A new block in the heap. Names that the first directory shows already keep their cookie.
std::optional<Nodes::Built> Nodes::build(const Filling& filling) {
  if (filling.entries.empty()) return Built{0, {}};
  std::unordered_map<std::string_view, std::uint64_t> cookies;
  if (const NodeRecord* const before = image_.find(filling.directory)) {
    if (DirectoryBlock* const block = image_.block(*before)) {
      DirectoryEntry* entry = Image::firstEntry(block);
      for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
        if (entry->node != 0) cookies.emplace(std::string_view(entry->name(), entry->nameBytes), entry->cookie);
      }
    }
  }
  struct Sorted {
    std::uint64_t cookie;
    const std::string* name;
    std::uint64_t id;
  };
  std::vector<Sorted> sorted;
  std::size_t bytes = sizeof(DirectoryBlock);
  for (const auto& [name, id] : filling.entries) {
    const auto known = cookies.find(name);
    const std::uint64_t cookie = known != cookies.end() ? known->second : image_.header().nextCookie++;
    sorted.push_back({cookie, &name, id});
    bytes += sizeof(DirectoryEntry) + (name.size() + 7) / 8 * 8;
  }
  std::ranges::sort(sorted, {}, &Sorted::cookie);

  const auto piece = arena_->alloc(bytes);
  if (!piece) return std::nullopt;
  auto* const block = new (piece->bytes.data()) DirectoryBlock{bytes, 2, static_cast<std::uint32_t>(sorted.size()), 0};
  DirectoryEntry* entry = Image::firstEntry(block);
  for (const auto& [cookie, name, id] : sorted) {
    entry->node = id;
    entry->cookie = cookie;
    entry->nameBytes = static_cast<std::uint32_t>(name->size());
    std::memcpy(reinterpret_cast<char*>(entry + 1), name->data(), name->size());
    if (const NodeRecord* const node = image_.find(id); node != nullptr && kindOf(*node) == NodeKind::directory) block->links++;
    entry = Image::nextEntry(entry);
  }
  return Built{image_.header().heapOffset + piece->id.offset, piece->id};
}

std::optional<std::uint64_t> Nodes::keep(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const auto piece = arena_->alloc(bytes.size());
  if (!piece) return std::nullopt;
  std::memcpy(piece->bytes.data(), bytes.data(), bytes.size());
  const std::uint64_t offset = image_.header().heapOffset + piece->id.offset;
  blockUsers_[offset] = 1;
  return offset;
}

std::optional<std::uint64_t> Nodes::buildGate(const Gating& gating) {
  if (gating.readers.empty() && gating.note.empty()) return gating.open ? gateOpen : gateShut;
  std::size_t bytes = sizeof(GateBlock) + gating.note.size();
  for (const auto& [cgroup, path] : gating.readers) bytes += sizeof(GateEntry) + (path.size() + 7) / 8 * 8;
  const auto piece = arena_->alloc(bytes);
  if (!piece) return std::nullopt;
  std::byte* at = piece->bytes.data();
  new (at) GateBlock{bytes, static_cast<std::uint32_t>(gating.readers.size()), static_cast<std::uint32_t>(gating.note.size()),
                     gating.open ? std::uint64_t{1} : 0};
  at += sizeof(GateBlock);
  for (const auto& [cgroup, path] : gating.readers) {
    const auto* const entry = new (at) GateEntry{cgroup, static_cast<std::uint32_t>(path.size()), 0};
    std::memcpy(at + sizeof(GateEntry), path.data(), path.size());
    at += entry->bytes();
  }
  std::memcpy(at, gating.note.data(), gating.note.size());
  const std::uint64_t offset = image_.header().heapOffset + piece->id.offset;
  blockUsers_[offset] = 1;
  return offset;
}

void Nodes::make(const NewNode& node, std::uint64_t textOffset, std::uint64_t noteOffset) {
  NodeRecord& record = image_.nodes()[node.id & slotMask];
  record.kind = static_cast<std::uint32_t>(node.kind);
  record.mode = typeBits(node.kind) | node.mode;
  record.uid = node.uid;
  record.gid = node.gid;
  record.parent = node.parent;
  record.modifiedMs = node.modifiedMs;
  record.skip = node.skip;
  record.size = node.kind == NodeKind::link ? node.text.size() : node.size;
  record.flags = (node.mappable ? nodeMappable : 0) | (node.kept ? nodeKept : 0) | (node.probe ? nodeProbe : 0);
  record.note = noteOffset;
  record.noteBytes = node.note.size();
  record.readableUntilMs = 0;
  record.gated = node.kind == NodeKind::file ? node.gated : 0;
  record.gate = gateOpen;
  record.unattributed = 0;
  record.leaseShiftMs = node.leaseShiftMs;
  const std::uint64_t content =
      node.kind == NodeKind::file ? image_.header().heapOffset + node.piece.offset : textOffset;
  record.content = content;
  record.id.store(node.id, std::memory_order_release);
  reserved_.erase(node.id);
  if (node.kind == NodeKind::file) valueUsers_[content].push_back(node.id);
  if (node.kind == NodeKind::file && node.mappable) mappableValues_.insert(content);
  used_++;
}

void Nodes::store(const Word& word, std::uint64_t value) {
  image_.journal()[journalled_++] = {image_.offsetOf(word), value};
}

void Nodes::carryOut() {
  image_.header().journalLength.store(std::exchange(journalled_, 0), std::memory_order_release);
  image_.replay();
}

bool Nodes::commit(const Step& step, Told& told, std::string& error) {
  if (!check(step, error)) {
    for (const NewNode& node : step.made) giveBack(node.id);
    return false;
  }

  // Everything that can fail comes first: texts, records, blocks. Nothing refers to them yet.
  std::vector<Arena::PieceId> pieces;
  std::vector<std::uint64_t> madeIds;
  const auto undo = [&](std::size_t bytes) {
    Told unheard;
    for (const std::uint64_t id : madeIds) free(id, unheard);
    for (std::size_t i = madeIds.size(); i < step.made.size(); i++) giveBack(step.made[i].id);
    for (const Arena::PieceId piece : pieces) arena_->release(piece);
    error = "the arena has no room for " + std::to_string(bytes) + " bytes of names";
    return false;
  };
  for (const NewNode& node : step.made) {
    const auto text = keep(node.kind == NodeKind::link ? std::string_view(node.text) : std::string_view());
    if (!text) return undo(node.text.size());
    const auto note = keep(node.note);
    if (!note) {
      unshare(*text);
      return undo(node.note.size());
    }
    make(node, *text, *note);
    madeIds.push_back(node.id);
  }
  std::vector<std::uint64_t> blocks;
  for (const Filling& filling : step.filled) {
    const auto built = build(filling);
    if (!built) return undo(filling.entries.size() * sizeof(DirectoryEntry));
    if (built->offset != 0) pieces.push_back(built->piece);
    blocks.push_back(built->offset);
  }
  std::vector<std::uint64_t> gates;
  for (const Gating& gating : step.gatings) {
    const auto gate = buildGate(gating);
    if (!gate) {
      for (const std::uint64_t built : gates) unshare(built);
      return undo(gating.note.size() + gating.readers.size() * sizeof(GateEntry));
    }
    gates.push_back(*gate);
  }

  // What is to be cut off must not come back, whenever this process is killed: where one journal holds not all, it goes first.
  const bool goesFirst = step.gone.size() > journalCapacity - storesOf(step);
  for (const std::uint64_t id : step.gone) {
    if (NodeRecord* const node = image_.find(id); goesFirst && node != nullptr && id != rootNode) node->flags |= nodeGone;
  }
  // The change itself, aside in the journal, then in one go.
  std::vector<std::uint64_t> before;
  std::unordered_map<std::uint64_t, std::uint64_t> newBlocks;
  for (std::size_t i = 0; i < step.filled.size(); i++) {
    const std::uint64_t id = step.filled[i].directory;
    NodeRecord& directory = *image_.find(id);
    tellNames(directory, told);
    told.directories.push_back(id);
    if (blocks[i] != 0) blockUsers_[blocks[i]]++;
    newBlocks.emplace(id, blocks[i]);
    before.push_back(directory.content);
    store(directory.content, blocks[i]);
    store(directory.modifiedMs, step.changedMs);
  }
  for (std::size_t i = 0; i < step.gatings.size(); i++) {
    NodeRecord& directory = *image_.find(step.gatings[i].directory);
    before.push_back(directory.gate);
    store(directory.gate, gates[i]);
  }
  if (!gates.empty()) gateEpoch_++;
  remove(step, newBlocks, told);
  supersede(step, told);
  for (const std::uint64_t id : step.gone) {
    if (const NodeRecord* const node = image_.find(id); !goesFirst && node != nullptr && id != rootNode)
      store(node->flags, node->flags | nodeGone);
  }
  carryOut();

  for (const std::uint64_t block : before) unshare(block);
  for (const std::uint64_t id : step.gone) free(id, told);
  // Wiped before they were replaced: nobody can read on.
  for (const std::uint64_t id : step.superseded) {
    if (const NodeRecord* const node = image_.find(id); node != nullptr && kindOf(*node) == NodeKind::file && node->content == 0)
      free(id, told);
  }
  keepChangedNames(told);
  return true;
}

// From the entries that a directory has after this step. A block's links and its directory's time are stored once.
void Nodes::remove(const Step& step, const std::unordered_map<std::uint64_t, std::uint64_t>& blocks, Told& told) {
  struct Change {
    DirectoryBlock* block;
    std::uint64_t lostLinks = 0;
  };
  std::unordered_map<std::uint64_t, Change> changes;  // by directory
  std::unordered_set<const DirectoryEntry*> removed;
  for (const auto& [parent, name] : step.removed) {
    const NodeRecord* const directory = image_.find(parent);
    if (directory == nullptr || kindOf(*directory) != NodeKind::directory) continue;
    const auto filled = blocks.find(parent);
    const std::uint64_t offset = filled != blocks.end() ? filled->second : directory->content.load();
    if (offset == 0) continue;
    auto* const block = reinterpret_cast<DirectoryBlock*>(image_.bytes().data() + offset);
    DirectoryEntry* entry = Image::firstEntry(block);
    for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
      if (entry->node == 0 || std::string_view(entry->name(), entry->nameBytes) != name) continue;
      if (!removed.insert(entry).second) break;
      const NodeRecord* const node = image_.find(entry->node);
      Change& change = changes.try_emplace(parent, Change{block}).first->second;
      if (node != nullptr && kindOf(*node) == NodeKind::directory) change.lostLinks++;
      told.names.push_back({parent, entry->node, name});
      store(entry->node, 0);
      break;
    }
  }
  for (const auto& [parent, change] : changes) {
    told.directories.push_back(parent);
    store(change.block->links, change.block->links - change.lostLinks);
    store(image_.find(parent)->modifiedMs, step.changedMs);
  }
}

void Nodes::supersede(const Step& step, Told& told) {
  for (const std::uint64_t id : step.superseded) {
    NodeRecord* const node = image_.find(id);
    if (node == nullptr || kindOf(*node) != NodeKind::file || node->content == 0) continue;
    store(node->readableUntilMs, step.readableUntilMs);
    store(node->flags, node->flags | nodeSuperseded);
    superseded_.push_back(id);
    wakeWaiters(id, told);
  }
}

// Only the names that show something else now.
void Nodes::keepChangedNames(Told& told) const {
  std::unordered_map<std::uint64_t, std::unordered_map<std::string_view, std::uint64_t>> shown;
  std::erase_if(told.names, [&](const Told::Name& name) {
    const auto [known, isNew] = shown.try_emplace(name.parent);
    const NodeRecord* const parent = image_.find(name.parent);
    DirectoryBlock* const block = parent == nullptr || !isNew ? nullptr : image_.block(*parent);
    if (block != nullptr) {
      DirectoryEntry* entry = Image::firstEntry(block);
      for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry))
        known->second.emplace(std::string_view(entry->name(), entry->nameBytes), entry->node);
    }
    const auto now = known->second.find(name.name);
    return now != known->second.end() && now->second == name.child;
  });
}

void Nodes::forget(Arena::PieceId piece, Told& told) {
  const std::uint64_t offset = image_.header().heapOffset + piece.offset;
  told.wasMapped = mappableValues_.erase(offset) != 0;
  const auto users = valueUsers_.find(offset);
  if (users == valueUsers_.end()) return;
  const std::vector<std::uint64_t> ids = std::move(users->second);
  valueUsers_.erase(users);
  for (const std::uint64_t id : ids) {
    const NodeRecord& node = *image_.find(id);
    if ((node.flags & nodeMappable) != 0) told.mapped.push_back({id, node.size});
    wakeWaiters(id, told);
    if (journalled_ == journalCapacity) carryOut();
    store(node.content, 0);
  }
  carryOut();
  // One that is shown stays until it is replaced or taken away: its name is there, its value is not.
  for (const std::uint64_t id : ids) {
    if ((image_.find(id)->flags & nodeSuperseded) != 0) free(id, told);
  }
}

void Nodes::expire(std::uint64_t nowMs, Told& told) {
  const std::vector<std::uint64_t> ids = superseded_;
  for (const std::uint64_t id : ids) {
    const NodeRecord* const node = image_.find(id);
    if (node == nullptr) {
      std::erase(superseded_, id);
    } else if (node->readableUntilMs <= nowMs) {
      free(id, told);
    }
  }
}

// Ends a node: nobody reads it from here on, and its id is never used again.
void Nodes::free(std::uint64_t id, Told& told) {
  NodeRecord* const node = image_.find(id);
  if (node == nullptr || id == rootNode) return;
  const std::uint64_t content = node->content;
  wakeWaiters(id, told);
  if ((node->flags & nodeMappable) != 0 && content != 0) told.mapped.push_back({id, node->size});
  node->content.store(0, std::memory_order_release);
  node->id.store(0, std::memory_order_release);
  switch (kindOf(*node)) {
    case NodeKind::file:
      if (const auto users = valueUsers_.find(content); users != valueUsers_.end()) {
        std::erase(users->second, id);
        if (users->second.empty()) valueUsers_.erase(users);
      }
      if ((node->flags & nodeSuperseded) != 0) std::erase(superseded_, id);
      break;
    case NodeKind::directory:
    case NodeKind::link: unshare(content); break;
  }
  unshare(std::exchange(node->note, 0));
  unshare(node->gate.exchange(gateOpen));
  node->noteBytes = 0;
  freeSlots_.push_back(static_cast<std::uint32_t>(id & slotMask));
  used_--;
}

bool Nodes::keepNote(std::span<const std::byte> note) {
  std::uint64_t offset = 0;
  if (!note.empty() && note.size() <= maxNoteBytes) {
    if (const auto piece = arena_->alloc(sizeof(NoteBlock) + note.size())) {
      const NoteBlock block{sizeof(NoteBlock) + note.size()};
      std::memcpy(piece->bytes.data(), &block, sizeof block);
      std::memcpy(piece->bytes.data() + sizeof block, note.data(), note.size());
      offset = static_cast<std::uint64_t>(piece->bytes.data() - image_.bytes().data());
    }
  }
  const std::uint64_t before = image_.header().keptNote.exchange(offset);
  if (const auto piece = before == 0 ? std::nullopt : arena_->find(image_.bytes().data() + before)) arena_->release(*piece);
  return offset != 0 || note.empty();
}

void Nodes::unshare(std::uint64_t block) {
  const auto users = blockUsers_.find(block);
  if (users == blockUsers_.end() || --users->second > 0) return;
  blockUsers_.erase(users);
  if (const auto piece = arena_->find(image_.bytes().data() + block)) arena_->release(*piece);
}

void Nodes::tellNames(const NodeRecord& directory, Told& told) const {
  DirectoryBlock* const block = image_.block(directory);
  if (block == nullptr) return;
  DirectoryEntry* entry = Image::firstEntry(block);
  for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
    if (entry->node != 0) told.names.push_back({directory.id, entry->node, std::string(entry->name(), entry->nameBytes)});
  }
}

bool Nodes::addWaiter(std::uint64_t kernelHandle, std::uint64_t handle, std::uint64_t node) {
  if (waiters_.contains(kernelHandle)) return true;
  const auto polls = image_.polls();
  for (std::size_t i = 0, place = waiters_.size(); i < polls.size(); i++, place++) {
    PollRecord& record = polls[place % polls.size()];
    if (record.kernelHandle != 0) continue;
    record.handle = handle;
    record.node = node;
    record.kernelHandle.store(kernelHandle, std::memory_order_release);
    waiters_.emplace(kernelHandle, place % polls.size());
    return true;
  }
  return false;
}

void Nodes::removeWaiters(std::uint64_t handle) {
  std::erase_if(waiters_, [&](const auto& waiter) {
    PollRecord& record = image_.polls()[waiter.second];
    if (record.handle != handle) return false;
    record.kernelHandle.store(0, std::memory_order_release);
    return true;
  });
}

void Nodes::removeAllWaiters() {
  for (const auto& [kernelHandle, place] : waiters_) image_.polls()[place].kernelHandle.store(0, std::memory_order_release);
  waiters_.clear();
}

void Nodes::wakeAllWaiters(Told& told) const {
  for (const auto& [kernelHandle, place] : waiters_) told.waiters.push_back(kernelHandle);
}

void Nodes::wakeWaiters(std::uint64_t node, Told& told) const {
  for (const auto& [kernelHandle, place] : waiters_) {
    if (image_.polls()[place].node == node) told.waiters.push_back(kernelHandle);
  }
}

}  // namespace inro
