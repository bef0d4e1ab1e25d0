#include "descriptor_store.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace inro {
namespace {

constexpr int firstPassedFd = 3;  // SD_LISTEN_FDS_START
constexpr int maxPassedFds = 64;

std::string_view variable(const char* name) {
  const char* const value = getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

std::optional<long> wholeNumber(std::string_view text) {
  long number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

}  // namespace

namespace {

// A path, or a name in the abstract namespace, which begins with '@'.
int sendTo(std::string_view path, const std::string& bytes, int fd) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@')) return EINVAL;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';

  const int socketFd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socketFd < 0) return errno;
  iovec data{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)] = {};
  if (fd >= 0) {
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t sent;
  do {
    sent = sendmsg(socketFd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  const int error = sent < 0 ? errno : 0;
  close(socketFd);
  return error;
}

}  // namespace

int notifyServiceManager(const std::string& lines, int fd) {
  const std::string_view path = variable("NOTIFY_SOCKET");
  return path.empty() ? ENOENT : sendTo(path, lines, fd);
}

int sendDatagram(const std::string& path, const std::string& bytes) { return path.empty() ? EINVAL : sendTo(path, bytes, -1); }

int awaitServiceManager(int ms) {
  // The manager closes the descriptor that comes with the barrier when it has come to it.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return errno;
  int error = notifyServiceManager("BARRIER=1", ends[1]);
  close(ends[1]);
  if (error == 0) {
    pollfd wait{ends[0], 0, 0};
    int ready;
    do {
      ready = poll(&wait, 1, ms);
    } while (ready < 0 && errno == EINTR);
    error = ready > 0 ? 0 : ready == 0 ? ETIMEDOUT : errno;
  }
  close(ends[0]);
  return error;
}

std::vector<StoredDescriptor> takeStored() {
  const auto pid = wholeNumber(variable("LISTEN_PID"));
  const auto count = wholeNumber(variable("LISTEN_FDS"));
  const std::string names(variable("LISTEN_FDNAMES"));
  for (const char* const name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(name);
  std::vector<StoredDescriptor> stored;
  if (pid != getpid() || !count || *count < 0 || *count > maxPassedFds) return stored;
  std::size_t from = 0;
  for (int i = 0; i < *count; i++) {
    const std::size_t end = std::min(names.find(':', from), names.size());
    const int fd = firstPassedFd + i;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) stored.push_back({names.substr(std::min(from, names.size()), end - std::min(from, end)), fd});
    from = end + 1;
  }
  return stored;
}

}  // namespace inro
