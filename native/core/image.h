// How everything that a mount shows lies in one piece of memory, so that a successor that is given the memory can serve it:
//
//   header | poll table | node table | journal | accesses | heap
//
// The heap holds values, directory blocks, link texts and notes; what nothing refers to is garbage that an adopter zeroes. A change of
// several places is made by the journal: 8-byte stores, written aside, then carried out; an adopter carries out what it finds.
// So a SIGKILL between any two instructions leaves the old state or the new one. The layout is versioned, not the machine's
// word size or byte order: the memory never leaves the host.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace inro {

constexpr char imageMagic[8] = {'I', 'N', 'R', 'O', 'I', 'M', 'G', '\n'};
constexpr std::uint32_t imageLayout = 4;
// Understood, too. In layout 2 there is no keptNote: the word is zero.
constexpr std::uint32_t oldestImageLayout = 2;

// A node id is its slot in the table and a serial that is never used again: an old id cannot name a newer node. It fits a
// JavaScript number.
constexpr unsigned slotBits = 20;
constexpr std::uint64_t slotMask = (std::uint64_t{1} << slotBits) - 1;
constexpr std::uint64_t maxSerial = (std::uint64_t{1} << (53 - slotBits)) - 1;
constexpr std::uint64_t rootNode = 1;  // FUSE_ROOT_ID: slot 1, serial 0
constexpr std::size_t firstFreeSlot = 2;
constexpr std::size_t maxNodes = std::size_t{1} << slotBits;

constexpr std::size_t maxNameBytes = 255;
constexpr std::size_t maxLinkBytes = 4095;
constexpr std::size_t maxNoteBytes = std::size_t{1} << 20;
constexpr std::size_t maxSkipBytes = 4096;
constexpr std::size_t pollCapacity = 4096;
constexpr std::size_t journalCapacity = 16384;
constexpr std::size_t accessCapacity = 2048;
constexpr std::size_t accessCountCapacity = 1024;

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

enum class NodeKind : std::uint32_t { directory = 1, link = 2, file = 3 };

// NodeRecord::flags.
constexpr std::uint64_t nodeMappable = 1;    // may be mapped, spliced, sent: its pages may be in the page cache
constexpr std::uint64_t nodeSuperseded = 2;  // a newer version is shown; open descriptors read on until readableUntilMs
constexpr std::uint64_t nodeGone = 4;        // about to be freed: nobody may use it any more
constexpr std::uint64_t nodeKept = 8;        // a directory that stays although no name leads to it: a bind mount may
constexpr std::uint64_t nodeProbe = 16;      // no secret: readable whatever the lease says

struct alignas(64) NodeRecord {
  Word id;  // 0: free. Written last when the node is made, cleared last when it goes.
  std::uint32_t kind;
  std::uint32_t mode;  // file type and permission bits
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint64_t parent;    // of a directory: what `..` is
  Word modifiedMs;         // since 1970
  Word content;            // offset in the image: a value's piece, a directory's block (0: empty), a link's text
  std::uint64_t skip;      // of a file: bytes in the piece before the value
  std::uint64_t size;      // of a file or link: bytes
  Word flags;
  Word readableUntilMs;    // CLOCK_BOOTTIME, with nodeSuperseded
  std::uint64_t note;      // offset in the image of what a successor is to know of the node (0: nothing); nobody here reads it
  std::uint64_t noteBytes;
  std::uint64_t gated;     // of a file: the directory whose gate says who may open it (0: whoever its mode lets)
  Word gate;               // of a directory: offset in the image of its GateBlock, gateOpen or gateShut
  Word unattributed;       // of a file: accesses that found no room in the table of counts
  std::int64_t leaseShiftMs;  // of a file: how much later than the arena's lease its own ends; negative: earlier
};
static_assert(sizeof(NodeRecord) == 128);

// NodeRecord::gate.
constexpr std::uint64_t gateOpen = 0;
constexpr std::uint64_t gateShut = 1;  // nobody passes

// Whose processes may read: those in these cgroups and below. The entries follow, each padded to 8 bytes, then a note for a
// successor. Immutable.
struct GateBlock {
  std::uint64_t bytes;  // with this
  std::uint32_t count;
  std::uint32_t noteBytes;
  std::uint64_t open;  // not 0: everybody passes, there is only a note
};
static_assert(sizeof(GateBlock) == 24);

struct GateEntry {
  std::uint64_t cgroup;  // id in the unified hierarchy; 0: `path` is the id of a container that may not have begun yet
  std::uint32_t pathBytes;
  std::uint32_t reserved;

  std::string_view path() const { return {reinterpret_cast<const char*>(this + 1), pathBytes}; }
  std::size_t bytes() const { return sizeof(GateEntry) + (pathBytes + std::size_t{7}) / 8 * 8; }
};
static_assert(sizeof(GateEntry) == 16);
constexpr std::size_t maxCgroupPathBytes = 4095;
constexpr std::size_t maxGateEntries = 4096;

// A directory's entries follow, each padded to 8 bytes. Immutable but for removals.
struct DirectoryBlock {
  std::uint64_t bytes;  // with this
  Word links;           // stat(2) st_nlink
  std::uint32_t count;  // of entries, with removed ones
  std::uint32_t reserved;
};
static_assert(sizeof(DirectoryBlock) == 24);

struct DirectoryEntry {
  Word node;             // 0: removed
  std::uint64_t cookie;  // readdir's position: grows in a block; the same name keeps it from block to block
  std::uint32_t nameBytes;
  std::uint32_t reserved;

  const char* name() const { return reinterpret_cast<const char*>(this + 1); }
  std::size_t bytes() const { return sizeof(DirectoryEntry) + (nameBytes + 7) / 8 * 8; }
};
static_assert(sizeof(DirectoryEntry) == 24);

// Who waits in poll(2): the kernel's handle, and the descriptor and node that it belongs to.
struct PollRecord {
  Word kernelHandle;  // 0: free
  std::uint64_t handle;
  std::uint64_t node;
  std::uint64_t reserved;
};
static_assert(sizeof(PollRecord) == 32);

// One access, as the mount saw it. A ring of these: [tail, head) of the header.
struct alignas(64) AccessRecord {
  Word stamp;  // its place in the order plus 1, written last
  std::uint64_t atMs;  // since 1970
  std::uint64_t node;
  std::uint64_t cgroup;
  std::uint64_t startTicks;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t thread;
  std::uint32_t process;
  std::uint32_t outcome;
  std::uint32_t reserved;
  char name[16];
};
static_assert(sizeof(AccessRecord) == 128);

// How often, since the last collection. Found by hash; a record of which `node` is 0 is free.
struct alignas(64) AccessCount {
  Word node;  // written last
  std::uint64_t cgroup;
  std::uint32_t uid;
  std::uint32_t outcome;
  Word count;
  Word lastMs;
};
static_assert(sizeof(AccessCount) == 64);

// Its text follows. Immutable.
struct NoteBlock {
  std::uint64_t bytes;  // with this
};

struct JournalStore {
  std::uint64_t offset;  // in the image
  std::uint64_t value;
};

struct alignas(64) ImageHeader {
  char magic[8];
  std::uint32_t layout;
  std::uint32_t headerBytes;
  std::uint64_t imageBytes;
  std::uint64_t nodeCapacity;
  std::uint64_t pollsOffset;
  std::uint64_t nodesOffset;
  std::uint64_t journalOffset;
  std::uint64_t accessesOffset;
  std::uint64_t heapOffset;

  Word journalLength;     // stores to be carried out; 0: none
  Word nextSerial;
  Word nextCookie;
  Word nextHandle;
  // Nothing behind these was ever used: it is zero and has no page.
  Word slotsUsed;         // records of the node table
  Word heapUsed;          // bytes of the heap
  Word serveUntilMs;      // CLOCK_BOOTTIME, at and after which nothing is served (the lease)
  Word closed;            // not 0: nothing is served any more
  Word fuseMinor;         // as negotiated by INIT; 0 before
  Word fuseFlags;
  Word accessHead;
  Word accessTail;
  Word accessesDropped;   // records, for want of room; their counts are kept
  Word keptNote;          // offset of a NoteBlock: what a successor is to know, of no node; 0: nothing
};
static_assert(sizeof(ImageHeader) == 192);

// Where the parts lie for a given number of nodes.
struct ImageLayout {
  std::size_t pollsOffset;
  std::size_t nodesOffset;
  std::size_t journalOffset;
  std::size_t accessesOffset;
  std::size_t heapOffset;
};
ImageLayout layoutOf(std::size_t nodeCapacity);

// The parts of one image in memory.
class Image {
 public:
  // Writes an empty image: a root directory and a heap of the bytes that are left. `memory` is zero and large enough.
  static Image format(std::span<std::byte> memory, std::size_t nodeCapacity, std::uint32_t rootMode, std::uint32_t uid,
                      std::uint32_t gid, std::uint64_t nowMs);
  // Carries out a pending journal and checks every offset, length and reference. Nothing when it is no image, one of another
  // layout, or damaged; then `error` says what is wrong.
  static std::optional<Image> open(std::span<std::byte> memory, std::string& error);

  // Whether the memory's own description of itself is that of an image which this program understands; nothing is changed.
  static bool isImage(std::span<std::byte> memory, std::string& error);

  ImageHeader& header() const { return *reinterpret_cast<ImageHeader*>(memory_.data()); }
  std::span<NodeRecord> nodes() const;  // those that were ever used
  std::span<PollRecord> polls() const;
  std::span<std::byte> heap() const { return memory_.subspan(header().heapOffset); }
  std::span<JournalStore> journal() const;
  std::span<AccessRecord> accesses() const;
  std::span<AccessCount> accessCounts() const;

  // The node of that id, or null.
  NodeRecord* find(std::uint64_t id) const;
  DirectoryBlock* block(const NodeRecord& directory) const;  // null: empty
  const GateBlock* gate(const NodeRecord& directory) const;  // null: open or shut
  std::string_view gateNote(const NodeRecord& directory) const;
  // Empty when there is none.
  std::string_view keptNote() const;
  static const GateEntry* firstEntry(const GateBlock* block) { return reinterpret_cast<const GateEntry*>(block + 1); }
  static const GateEntry* nextEntry(const GateEntry* entry) {
    return reinterpret_cast<const GateEntry*>(reinterpret_cast<const std::byte*>(entry) + entry->bytes());
  }
  std::string_view note(const NodeRecord& node) const;
  std::span<std::byte> bytes() const { return memory_; }
  static DirectoryEntry* firstEntry(DirectoryBlock* block) { return reinterpret_cast<DirectoryEntry*>(block + 1); }
  static DirectoryEntry* nextEntry(DirectoryEntry* entry) {
    return reinterpret_cast<DirectoryEntry*>(reinterpret_cast<std::byte*>(entry) + entry->bytes());
  }
  std::uint64_t offsetOf(const Word& word) const {
    return static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(&word) - memory_.data());
  }
  // Carries out what the journal holds.
  void replay() const;

 private:
  explicit Image(std::span<std::byte> memory) : memory_(memory) {}

  bool checkHeader(std::string& error) const;
  bool checkJournal(std::string& error) const;
  bool inHeap(std::uint64_t offset, std::uint64_t bytes) const;
  bool checkNode(const NodeRecord& node, std::size_t slot, std::string& error) const;
  bool checkBlock(const NodeRecord& directory, std::string& error) const;
  bool checkGate(const NodeRecord& directory, std::string& error) const;
  bool checkKeptNote(std::string& error) const;

  std::span<std::byte> memory_;
};

}  // namespace inro
