#include "channel.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace inro {

DeviceChannel::~DeviceChannel() { close(fd_); }

ssize_t DeviceChannel::receive(std::span<std::byte> buffer) {
  const ssize_t bytes = read(fd_, buffer.data(), buffer.size());
  if (bytes == 0) return -ENODEV;  // no request is empty: this is what end() left
  return bytes > 0 ? bytes : -errno;
}

int DeviceChannel::send(std::span<const std::byte> message) {
  ssize_t bytes;
  do {
    bytes = write(fd_, message.data(), message.size());
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) return errno;
  return static_cast<std::size_t>(bytes) == message.size() ? 0 : EIO;
}

// The number stays taken, because another thread may be about to use it.
void DeviceChannel::end() {
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nothing < 0) return;
  dup3(nothing, fd_, O_CLOEXEC);
  close(nothing);
}

}  // namespace inro
