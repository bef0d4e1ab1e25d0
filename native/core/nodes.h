// What a mount shows, kept in an image: makes steps of it, each seen whole or not at all, and takes values away. The books here
// (free slots, who uses which piece) are made anew from an adopted image. One thread at a time, and no reader during a call.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "arena.h"
#include "image.h"

namespace inro {

struct NewNode {
  std::uint64_t id;  // reserved before
  NodeKind kind;
  std::uint32_t mode;  // permission bits
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint64_t parent;
  std::uint64_t modifiedMs;
  Arena::PieceId piece;  // of a file: where its value is
  std::size_t skip;
  std::size_t size;
  bool mappable;
  std::string text;  // of a link
  std::string note;  // for a successor; empty: none
  bool kept = false;   // of a directory: nodeKept
  bool probe = false;  // of a file: nodeProbe
  std::uint64_t gated = 0;  // of a file: the directory whose gate says who may open it
  std::int64_t leaseShiftMs = 0;  // of a file
};

// Who passes a directory's gate.
struct Gating {
  struct Reader {
    std::uint64_t cgroup;
    std::string path;
  };
  std::uint64_t directory;
  bool open;  // whoever a file's mode lets; then there are no readers
  std::vector<Reader> readers;
  std::string note;  // for a successor
};

struct Filling {
  std::uint64_t directory;
  std::vector<std::pair<std::string, std::uint64_t>> entries;
};

struct Step {
  std::vector<NewNode> made;
  std::vector<Filling> filled;
  std::vector<std::pair<std::uint64_t, std::string>> removed;  // a directory, a name in it
  std::vector<Gating> gatings;
  std::vector<std::uint64_t> superseded;                       // files; open descriptors read on for a while
  std::uint64_t readableUntilMs = 0;                           // CLOCK_BOOTTIME, for those
  std::vector<std::uint64_t> gone;                             // nodes that nobody may use any more
  std::uint64_t changedMs = 0;                                 // since 1970: when the directories changed
};

// What the kernel should hear after a step.
struct Told {
  struct Name {
    std::uint64_t parent;
    std::uint64_t child;
    std::string name;
  };
  struct Mapped {
    std::uint64_t node;
    std::uint64_t bytes;
  };
  std::vector<Name> names;                // names whose node is gone or another one
  std::vector<std::uint64_t> directories;  // whose attributes changed
  std::vector<std::uint64_t> waiters;      // kernel handles of poll(2) to wake
  std::vector<Mapped> mapped;              // pages of these may be in the page cache, and must go
  bool wasMapped = false;                  // pages of the value may have been there under any node, also one that went before
};

class Nodes {
 public:
  // On an image that Image::format or Image::open gave. An adopted one is swept: what nothing reaches is freed and zeroed.
  // Nothing when its parts overlap; then `error` says so.
  static std::optional<Nodes> on(Image image, Arena& arena, std::string& error);

  // A fresh id, or nothing when all slots are taken. Not shown before a step has made it.
  std::optional<std::uint64_t> reserve();
  // Nothing for an id that is not reserved (any more).
  void giveBack(std::uint64_t id);

  // Carries out all of a step or, when memory is lacking or the step makes no sense, nothing of it, and says why. A step that
  // makes nothing, fills with nothing and shuts gates without a note needs no memory.
  bool commit(const Step& step, Told& told, std::string& error);
  // In place of what was kept before, also when it finds no room: then nothing is kept, and it says false.
  bool keepNote(std::span<const std::byte> note);
  // Takes the value from every node that shows this piece. The caller zeroes it then.
  void forget(Arena::PieceId piece, Told& told);
  // Frees superseded nodes whose time is over.
  void expire(std::uint64_t nowMs, Told& told);

  const Image& image() const { return image_; }
  // Another one after each step that changed a gate.
  std::uint64_t gateEpoch() const { return gateEpoch_; }
  std::size_t used() const { return used_; }

  // Somebody waits for news of a node. False when there is no room for one more.
  bool addWaiter(std::uint64_t kernelHandle, std::uint64_t handle, std::uint64_t node);
  void removeWaiters(std::uint64_t handle);
  void removeAllWaiters();
  void wakeAllWaiters(Told& told) const;

 private:
  explicit Nodes(Image image, Arena& arena) : image_(image), arena_(&arena) {}

  bool adopt(std::string& error);
  std::unordered_set<std::uint64_t> reached() const;
  bool check(const Step& step, std::string& error) const;
  bool checkMade(const Step& step, std::string& error) const;
  struct Built {
    std::uint64_t offset;  // in the image; 0: empty
    Arena::PieceId piece;
  };
  std::optional<Built> build(const Filling& filling);
  // In a piece of its own: its offset in the image, 0 for nothing to keep. Nothing when there is no room.
  std::optional<std::uint64_t> keep(std::string_view bytes);
  // What its directory's `gate` is to be. Nothing when there is no room.
  std::optional<std::uint64_t> buildGate(const Gating& gating);
  void make(const NewNode& node, std::uint64_t textOffset, std::uint64_t noteOffset);
  void remove(const Step& step, const std::unordered_map<std::uint64_t, std::uint64_t>& blocks, Told& told);
  void supersede(const Step& step, Told& told);
  // Into the journal; carried out together with all since the last carryOut().
  void store(const Word& word, std::uint64_t value);
  void carryOut();
  void free(std::uint64_t id, Told& told);
  void unshare(std::uint64_t block);
  void tellNames(const NodeRecord& directory, Told& told) const;
  void keepChangedNames(Told& told) const;
  void wakeWaiters(std::uint64_t node, Told& told) const;

  Image image_;
  Arena* arena_;
  std::vector<std::uint32_t> freeSlots_;
  std::unordered_set<std::uint64_t> reserved_;  // ids that no step has made yet
  std::size_t used_ = 0;
  std::uint64_t gateEpoch_ = 1;
  std::size_t journalled_ = 0;
  std::unordered_map<std::uint64_t, std::uint32_t> blockUsers_;              // block or text offset -> nodes that show it
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> valueUsers_;  // value offset -> nodes
  std::unordered_set<std::uint64_t> mappableValues_;  // offsets of values that a mappable node shows or has shown
  std::vector<std::uint64_t> superseded_;
  std::unordered_map<std::uint64_t, std::size_t> waiters_;  // kernel handle -> place in the table
};

}  // namespace inro
