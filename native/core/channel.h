// What the server reads requests from and writes replies to: /dev/fuse, or a fake of it under test.
#pragma once

#include <cstddef>
#include <span>

#include <sys/types.h>

namespace inro {

class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  virtual ~Channel() = default;
  // One request: its bytes, or -errno. Waits for it; a signal ends the wait (-EINTR).
  virtual ssize_t receive(std::span<std::byte> buffer) = 0;
  // One reply or notification, whole: 0 or an errno.
  virtual int send(std::span<const std::byte> message) = 0;
  // Nobody is going to answer: whoever waits gets ENOTCONN, now and from here on. May be called while other threads send.
  virtual void end() = 0;
};

// Owns the descriptor. Closing the last one of a mount ends its connection: readers get ENOTCONN.
class DeviceChannel final : public Channel {
 public:
  explicit DeviceChannel(int fd) : fd_(fd) {}
  ~DeviceChannel() override;
  ssize_t receive(std::span<std::byte> buffer) override;
  int send(std::span<const std::byte> message) override;
  void end() override;
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace inro
