#include "descriptor_passing.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace inro {
namespace {

std::string words(const char* call) { return std::string(call) + ": " + std::generic_category().message(errno); }

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

bool addressOf(const std::string& path, sockaddr_un& address, std::string& error) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    error = "the path of the socket is too long: " + path;
    return false;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

bool isReady(int fd, short events, std::uint64_t ms) {
  pollfd wait{fd, events, 0};
  int ready;
  do {
    ready = poll(&wait, 1, static_cast<int>(ms));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

// SO_PEERCRED: as it was when the other side connected or listened.
bool isTrusted(int fd, std::string& error) {
  ucred peer{};
  socklen_t bytes = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
    error = words("SO_PEERCRED");
    return false;
  }
  if (peer.uid == 0 || peer.uid == getuid()) return true;
  error = "the other side runs as user " + std::to_string(peer.uid) + ", not as user " + std::to_string(getuid());
  return false;
}

}  // namespace

std::string passDescriptors(const std::string& path, std::span<const int> descriptors, std::uint64_t ms) {
  std::string error;
  sockaddr_un address{};
  if (descriptors.empty() || descriptors.size() > maxPassedDescriptors) return "there is nothing, or too much, to pass";
  if (!addressOf(path, address, error)) return error;
  const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return words("socket");
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return words("connect");
  if (!isTrusted(socket.get(), error)) return error;
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int) * maxPassedDescriptors)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  if (!isReady(socket.get(), POLLOUT, ms)) return "the other side does not take the descriptors";
  if (sendmsg(socket.get(), &message, MSG_NOSIGNAL) != 1) return words("sendmsg");
  return "";
}

std::optional<DescriptorReceiver> DescriptorReceiver::listen(const std::string& path, std::string& error) {
  sockaddr_un address{};
  if (!addressOf(path, address, error)) return std::nullopt;
  Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) {
    error = words("socket");
    return std::nullopt;
  }
  // Before it has a name: nobody else gets in between.
  fchmod(socket.get(), S_IRUSR | S_IWUSR);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    error = words("bind");
    return std::nullopt;
  }
  DescriptorReceiver receiver(path, socket.release());
  if (::listen(receiver.fd_, 1) != 0) {
    error = words("listen");
    return std::nullopt;
  }
  return receiver;
}

DescriptorReceiver::DescriptorReceiver(DescriptorReceiver&& other) noexcept
    : path_(std::exchange(other.path_, "")), fd_(std::exchange(other.fd_, -1)) {}

DescriptorReceiver::~DescriptorReceiver() {
  if (fd_ >= 0) close(fd_);
  if (!path_.empty()) unlink(path_.c_str());
}

std::vector<int> DescriptorReceiver::receive(std::uint64_t ms, std::string& error) {
  if (!isReady(fd_, POLLIN, ms)) {
    error = "nobody sent the descriptors within " + std::to_string(ms) + " ms";
    return {};
  }
  const Socket socket(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
  if (socket.get() < 0) {
    error = words("accept");
    return {};
  }
  if (!isTrusted(socket.get(), error)) return {};
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int) * maxPassedDescriptors)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  if (!isReady(socket.get(), POLLIN, ms) || recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC) != 1) {
    error = words("recvmsg");
    return {};
  }
  std::vector<int> descriptors;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; i++) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      descriptors.push_back(fd);
    }
  }
  if (descriptors.empty()) error = "no descriptors came";
  return descriptors;
}

}  // namespace inro
