#include "arena.h"

#include <string.h>

#include <algorithm>
#include <iterator>

namespace inro {
namespace {

// Not memset: a compiler may drop a memset of memory that nobody reads again.
void zero(std::span<std::byte> bytes) { explicit_bzero(bytes.data(), bytes.size()); }

}  // namespace

Arena::Arena(std::span<std::byte> region, std::atomic<std::uint64_t>* used)
    : region_(region), touchedBytes_(used == nullptr ? ownTouched_ : *used) {
  free_.emplace(0, region.size());
}

Arena::~Arena() { wipe(); }

std::optional<Arena::Piece> Arena::alloc(std::size_t bytes) {
  // The size is checked before it is rounded up, which could overflow.
  if (bytes == 0 || bytes > region_.size()) return std::nullopt;
  const std::size_t length = (bytes + granuleBytes - 1) / granuleBytes * granuleBytes;

  const auto fit = std::ranges::find_if(free_, [length](const auto& span) { return span.second >= length; });
  if (fit == free_.end()) return std::nullopt;
  const auto [offset, available] = *fit;
  free_.erase(fit);
  if (available > length) free_.emplace(offset + length, available - length);

  const PieceId id{offset, nextSerial_++};
  occupied_.emplace(offset, Occupied{length, id.serial});
  usedBytes_ += length;
  // Zero already, but for a late write through a stale pointer: a read(2) that was under way when the piece was freed.
  zero(touched(offset, length));
  touch(offset + length);
  return Piece{id, region_.subspan(offset, bytes)};
}

std::optional<Arena::PieceId> Arena::claim(std::size_t offset, std::size_t bytes) {
  const std::size_t size = region_.size();
  if (bytes == 0 || offset % granuleBytes != 0 || offset > size || bytes > size - offset) return std::nullopt;
  const std::size_t length = std::min((bytes + granuleBytes - 1) / granuleBytes * granuleBytes, size - offset);
  const auto after = free_.upper_bound(offset);
  if (after == free_.begin()) return std::nullopt;
  const auto [start, available] = *std::prev(after);
  if (start + available < offset + length) return std::nullopt;
  free_.erase(std::prev(after));
  if (start < offset) free_.emplace(start, offset - start);
  if (offset + length < start + available) free_.emplace(offset + length, start + available - offset - length);
  const PieceId id{offset, nextSerial_++};
  occupied_.emplace(offset, Occupied{length, id.serial});
  usedBytes_ += length;
  touch(offset + length);
  return id;
}

std::span<std::byte> Arena::touched(std::size_t offset, std::size_t length) const {
  const std::size_t end = touchedBytes_.load(std::memory_order_relaxed);
  return region_.subspan(offset, std::min(length, end - std::min(offset, end)));
}

// Before anything is written there: a process that is killed leaves nothing beyond.
void Arena::touch(std::size_t end) {
  if (end > touchedBytes_.load(std::memory_order_relaxed)) touchedBytes_.store(end, std::memory_order_release);
}

void Arena::zeroFree() {
  for (const auto& [offset, length] : free_) zero(touched(offset, length));
}

std::span<std::byte> Arena::bytesOf(PieceId id) const {
  const auto piece = occupied_.find(id.offset);
  if (piece == occupied_.end() || piece->second.serial != id.serial) return {};
  return region_.subspan(id.offset, piece->second.length);
}

std::optional<Arena::PieceId> Arena::find(const void* start) const {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const auto base = reinterpret_cast<std::uintptr_t>(region_.data());
  if (address < base) return std::nullopt;
  const auto piece = occupied_.find(address - base);
  if (piece == occupied_.end()) return std::nullopt;
  return PieceId{piece->first, piece->second.serial};
}

bool Arena::release(PieceId id) {
  const auto piece = occupied_.find(id.offset);
  if (piece == occupied_.end() || piece->second.serial != id.serial) return false;
  const std::size_t length = piece->second.length;
  zero(region_.subspan(id.offset, length));
  occupied_.erase(piece);
  usedBytes_ -= length;
  giveBack(id.offset, length);
  return true;
}

void Arena::giveBack(std::size_t offset, std::size_t length) {
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + length == next->first) {
    length += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      previous->second += length;
      return;
    }
  }
  free_.emplace_hint(next, offset, length);
}

void Arena::wipe() {
  if (isOurs_) zero(touched(0, region_.size()));
}

ArenaUse Arena::use() const {
  const std::size_t size = region_.size();
  std::size_t largest = 0;
  for (const auto& [offset, length] : free_) largest = std::max(largest, length);
  return {size, usedBytes_, size - usedBytes_, largest, occupied_.size()};
}

}  // namespace inro
