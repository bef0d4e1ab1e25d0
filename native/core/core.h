// The arena with, if wanted, a tree of nodes over it: the one object that holds plaintext. Readers (the FUSE server's threads)
// hold the lock shared while they answer; whoever changes something holds it alone. So when a call that takes bytes away
// returns, every answer that had begun before it has been given and its buffer zeroed.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "access_book.h"
#include "arena.h"
#include "image.h"
#include "locked_mapping.h"
#include "nodes.h"

namespace inro {

// Prefers writers: readers that follow each other without a gap must not keep a wipe waiting.
class ReadWriteLock {
 public:
  ReadWriteLock();
  ReadWriteLock(const ReadWriteLock&) = delete;
  ReadWriteLock& operator=(const ReadWriteLock&) = delete;
  ~ReadWriteLock() { pthread_rwlock_destroy(&lock_); }
  void lock() { pthread_rwlock_wrlock(&lock_); }
  void unlock() { pthread_rwlock_unlock(&lock_); }
  void lock_shared() { pthread_rwlock_rdlock(&lock_); }
  void unlock_shared() { pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_;
};

std::uint64_t boottimeMs();
std::uint64_t realtimeMs();  // since 1970

enum class Released { notOut, done, late };

struct CoreOptions {
  std::size_t heapBytes;
  bool allowSecret = true;
  std::size_t nodes = 0;  // 0: an arena alone, nothing to mount
  std::uint32_t uid = 0;  // of the root directory
  std::uint32_t gid = 0;
};

class Core {
 public:
  // Nothing only when the kernel has no memory; then `error` says so.
  static std::unique_ptr<Core> create(const CoreOptions& options, std::string& error);
  // The same on memory that is there already, all zero and large enough.
  static std::unique_ptr<Core> createOn(LockedMapping mapping, const CoreOptions& options, std::string& error);
  // Takes over the image that another process left in this memory, and zeroes what nothing in it refers to. Nothing when it is
  // damaged, of another layout, or none; then `error` says so and the memory is as it was, but for a journal carried out.
  static std::unique_ptr<Core> adopt(LockedMapping mapping, std::string& error);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  // Zeroes everything, unless it was let go.
  ~Core();

  const LockedMapping& mapping() const { return mapping_; }
  bool hasNodes() const { return nodes_.has_value(); }

  std::optional<Arena::Piece> alloc(std::size_t bytes);
  std::optional<Arena::PieceId> find(const void* start);
  // Where a file's value is; nothing when it has none.
  std::optional<Arena::Piece> valueOf(std::uint64_t node);
  // Ends the nodes that show the piece, zeroes it, takes it back. Returns once nobody can read it any more, not by a descriptor,
  // not by a mapping; `late` when the kernel has not let go of its mapped pages yet.
  Released release(Arena::PieceId id);
  ArenaUse use();
  std::size_t nodesUsed();
  // Nothing is served any more; everything is zero.
  void wipe();
  // What is in the memory is a successor's from here on: nothing is changed, zeroed or given out any more, whatever is called.
  // Servers are stopped before.
  void letGo();

  std::optional<std::uint64_t> reserve();
  void giveBack(std::uint64_t id);
  bool commit(const Step& step, std::string& error);
  // What a successor is to know, of no node: in place of what was kept before. False when there is no room: then nothing is kept.
  bool keepNote(std::span<const std::byte> note);
  // CLOCK_BOOTTIME in ms, at and after which nothing is served.
  void serveUntil(std::uint64_t boottimeMs);

  std::uint64_t servedUntil();
  // Who accessed what since the last time; also what a predecessor left.
  Collected collectAccesses();

  // Before a new mount: nothing is negotiated yet, nobody waits.
  void forgetConnection();
  // Tells everybody who waits in poll(2): a successor cannot know what they have heard.
  void retell();

  // For servers, who hold the lock shared.
  // By the lease, and as long as the memory is not wiped as a whole.
  bool serves(const NodeRecord& node) const;
  struct Readable {
    AccessOutcome outcome;  // opened, or why there is nothing
    std::span<const std::byte> bytes;
  };
  // A file's value, if it may be read now by somebody who has it open.
  Readable readable(std::uint64_t node) const;
  ReadWriteLock& lock() { return lock_; }
  Nodes& nodes() { return *nodes_; }
  AccessBook& accessBook() { return *accessBook_; }
  // Called outside of the lock with what the kernel should hear; set before anything is served, cleared after.
  void onTold(std::function<bool(const Told&)> tell);

 private:
  Core(LockedMapping mapping, std::size_t heapOffset, Word* heapUsed);
  static std::unique_ptr<Core> over(LockedMapping mapping, const Image& image, std::string& error);
  bool tell(const Told& told);

  bool isOurs_ = true;
  LockedMapping mapping_;
  ReadWriteLock lock_;
  Arena arena_;
  std::optional<Nodes> nodes_;
  std::optional<AccessBook> accessBook_;
  std::mutex tellLock_;
  std::function<bool(const Told&)> tell_;
};

}  // namespace inro
