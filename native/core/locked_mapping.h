// One stretch of the best memory for secrets that the kernel gives; unmapped by its destructor. Zeroing is its owner's work.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace inro {

// memfdSecret: outside the kernel's direct map, so /proc/PID/mem, ptrace and core files cannot read it (memfd_secret(2)).
// mlock: private anonymous memory, locked as it is touched, not dumped, not inherited by a fork.
enum class MappingKind { memfdSecret, mlock };

class LockedMapping {
 public:
  // Whole pages, all zero, at least `bytes` of them. `allowSecret` false goes straight to mlock (tests of the fallback).
  // Memory that cannot be locked is given all the same, with locked() false. Nothing is given only when the kernel has no
  // memory at all; then `error` says so.
  // `keepDescriptor`: the descriptor of memfd_secret stays open, for a successor to be given; mlock has none to give.
  static std::optional<LockedMapping> map(std::size_t bytes, bool allowSecret, std::string& error, bool keepDescriptor = false);

  // The memory behind a descriptor of memfd_secret(2) that another process left; takes the descriptor, also when it fails. Nothing
  // when it is no such descriptor, or its size is not `minBytes` to `maxBytes`; then `error` says so.
  static std::optional<LockedMapping> adopt(int fd, std::size_t minBytes, std::size_t maxBytes, std::string& error);

  // Memory that somebody else maps and unmaps, such as an image under test.
  static LockedMapping borrow(std::span<std::byte> bytes);

  LockedMapping(LockedMapping&& other) noexcept;
  LockedMapping(const LockedMapping&) = delete;
  LockedMapping& operator=(const LockedMapping&) = delete;
  LockedMapping& operator=(LockedMapping&&) = delete;
  ~LockedMapping();

  std::span<std::byte> bytes() const { return bytes_; }
  // Of memfd_secret, if it was kept; -1 otherwise. Whoever has it can read all of it.
  int descriptor() const { return fd_; }
  MappingKind kind() const { return kind_; }
  bool locked() const { return locked_; }
  // Why the better kind, or the lock, is not in force; empty when it is.
  const std::string& note() const { return note_; }

 private:
  LockedMapping(std::span<std::byte> bytes, MappingKind kind) : bytes_(bytes), kind_(kind) {}

  static std::optional<LockedMapping> mapSecret(std::size_t bytes, std::string& error, bool keepDescriptor);
  static std::optional<LockedMapping> mapDescriptor(int fd, std::size_t bytes, std::string& error);
  static std::optional<LockedMapping> mapAnonymous(std::size_t bytes, std::string& error);

  std::span<std::byte> bytes_;
  MappingKind kind_;
  bool locked_ = true;
  bool owned_ = true;
  int fd_ = -1;
  std::string note_;
};

}  // namespace inro
