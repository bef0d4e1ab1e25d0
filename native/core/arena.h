// Hands out pieces of a bounded region of memory.
//
// What holds between any two calls: every byte outside a piece that is out is zero, unless somebody wrote through a stale
// pointer (then alloc zeroes it before anyone else sees it). The books are kept outside the region, so that nothing written
// into a piece can corrupt them. One thread at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

namespace inro {

struct ArenaUse {
  std::size_t sizeBytes;
  std::size_t usedBytes;  // in whole granules, as pieces occupy them
  std::size_t freeBytes;
  std::size_t largestBytes;  // what alloc would give now
  std::size_t pieces;
};

class Arena {
 public:
  static constexpr std::size_t granuleBytes = 64;  // a cache line: no two pieces share one
  static constexpr std::size_t maxBytes = std::size_t{1} << 30;

  // The serial is never used twice, so an old id cannot name a newer piece at the same place.
  struct PieceId {
    std::size_t offset;
    std::uint64_t serial;
  };
  struct Piece {
    PieceId id;
    std::span<std::byte> bytes;
  };

  // The region outlives the arena. `used`: where to keep, for whoever adopts the region, how many bytes from its start were ever
  // handed out; beyond them it is zero and costs no page.
  explicit Arena(std::span<std::byte> region, std::atomic<std::uint64_t>* used = nullptr);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  // First fit. Zeroed; starts at a granule. Nothing for 0 bytes, or when no free stretch is as large.
  std::optional<Piece> alloc(std::size_t bytes);
  // Takes a stretch as a piece that is in use already, as the pieces of an adopted image are. Nothing when it is not wholly free.
  std::optional<PieceId> claim(std::size_t offset, std::size_t bytes);
  // Zeroes whatever is free: for a region that was not zero at first.
  void zeroFree();
  // What is in the region stays, for it is somebody else's: neither wipe() nor the destructor zeroes it.
  void letGo() { isOurs_ = false; }
  // The piece that starts at `start`, if one does.
  std::optional<PieceId> find(const void* start) const;
  // Zeroes the piece and takes it back. False when it is not out (any more).
  bool release(PieceId id);
  // Zeroes all that was ever handed out; pieces stay out.
  void wipe();

  ArenaUse use() const;
  std::span<std::byte> region() const { return region_; }
  std::span<std::byte> bytesOf(PieceId id) const;

 private:
  struct Occupied {
    std::size_t length;  // whole granules
    std::uint64_t serial;
  };

  std::span<std::byte> touched(std::size_t offset, std::size_t length) const;
  void touch(std::size_t end);
  void giveBack(std::size_t offset, std::size_t length);

  std::span<std::byte> region_;
  std::map<std::size_t, std::size_t> free_;   // offset -> length; neighbours are always merged
  std::map<std::size_t, Occupied> occupied_;  // offset -> piece
  std::size_t usedBytes_ = 0;
  bool isOurs_ = true;
  std::atomic<std::uint64_t> ownTouched_{0};
  std::atomic<std::uint64_t>& touchedBytes_;  // nothing beyond was ever handed out
  std::uint64_t nextSerial_ = 1;
};

}  // namespace inro
