#include "mount.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <system_error>
#include <vector>

#include "responder.h"

extern char** environ;

namespace inro {
namespace {

constexpr std::chrono::milliseconds helperMs{10'000};
constexpr char commandSocket[] = "_FUSE_COMMFD";
constexpr std::size_t maxSaidBytes = 2'000;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string options(int fd) {
  return "fd=" + std::to_string(fd) + ",rootmode=40000,user_id=" + std::to_string(getuid()) +
         ",group_id=" + std::to_string(getgid()) + ",default_permissions,allow_other,max_read=" + std::to_string(maxReadBytes);
}

std::string words(int error) { return std::generic_category().message(error); }

// Whether there is something to read, or the end of it, before the time.
bool isReadable(int fd, std::chrono::steady_clock::time_point end) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd wait{fd, POLLIN, 0};
    const int ready = poll(&wait, 1, static_cast<int>(std::max(left, std::chrono::milliseconds(0)).count()));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

// fusermount3 sends one byte with the descriptor beside it.
int receiveDescriptor(int socket) {
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  ssize_t bytes;
  do {
    bytes = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (bytes < 0 && errno == EINTR);
  if (bytes <= 0) return -1;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len < CMSG_LEN(sizeof(int)))
    return -1;
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

std::string readAll(int fd, std::chrono::steady_clock::time_point end) {
  std::string text;
  char room[256];
  while (text.size() < maxSaidBytes && isReadable(fd, end)) {
    const ssize_t bytes = read(fd, room, sizeof room);
    if (bytes <= 0) break;
    text.append(room, static_cast<std::size_t>(bytes));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

Mounted mountDirectly(const std::string& path) {
  Descriptor device(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (device.get() < 0) return {-1, errno, "open /dev/fuse", ""};
  if (mount("inro", path.c_str(), "fuse.inro", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options(device.get()).c_str()) != 0)
    return {-1, errno, "mount", ""};
  return {device.release(), 0, "", ""};
}

Mounted mountByHelper(const std::string& path, bool allowOther) {
  int sockets[2];
  int pipes[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) return {-1, errno, "socketpair", ""};
  Descriptor ours(sockets[0]);
  Descriptor theirs(sockets[1]);
  if (pipe2(pipes, O_CLOEXEC) != 0) return {-1, errno, "pipe", ""};
  Descriptor said(pipes[0]);
  Descriptor saying(pipes[1]);

  constexpr int helperSocket = 3;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, saying.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), helperSocket);
  std::string text = std::string("ro,nosuid,nodev,noexec,fsname=inro,subtype=inro,default_permissions,max_read=") +
                     std::to_string(maxReadBytes) + (allowOther ? ",allow_other" : "");
  std::string program = "fusermount3";
  std::string optionFlag = "-o";
  std::string end = "--";
  std::string where = path;
  char* arguments[] = {program.data(), optionFlag.data(), text.data(), end.data(), where.data(), nullptr};
  const std::string socketName = std::string(commandSocket) + "=";
  std::string socketVariable = socketName + std::to_string(helperSocket);
  std::vector<char*> environment;
  for (char** each = environ; *each != nullptr; each++) {
    if (!std::string_view(*each).starts_with(socketName)) environment.push_back(*each);
  }
  environment.push_back(socketVariable.data());
  environment.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return {-1, error, "fusermount3", ""};
  theirs.reset();
  saying.reset();

  // What it says is read last: it says something only when it fails, and little.
  const auto limit = std::chrono::steady_clock::now() + helperMs;
  const bool answered = isReadable(ours.get(), limit);
  Descriptor device(answered ? receiveDescriptor(ours.get()) : -1);
  std::string words = device.get() < 0 ? readAll(said.get(), limit) : "";
  if (!answered && words.empty()) words = "it did not answer within " + std::to_string(helperMs.count() / 1000) + " s";
  if (device.get() < 0) kill(child, SIGKILL);  // if it has not ended by itself
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (device.get() < 0) return {-1, EPERM, "fusermount3", words};
  return {device.release(), 0, "", ""};
}

std::string strictSelfTest(const std::string& path, std::span<const std::byte> content) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return "open: " + words(errno);
  std::vector<std::byte> got(content.size() + 1);
  const ssize_t bytes = pread(file.get(), got.data(), got.size(), 0);
  if (bytes < 0) return "read: " + words(errno);
  if (static_cast<std::size_t>(bytes) != content.size() || std::memcmp(got.data(), content.data(), content.size()) != 0)
    return "read: gave other bytes";

  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return "pipe: " + words(errno);
  const Descriptor out(ends[0]);
  const Descriptor in(ends[1]);
  loff_t offset = 0;
  if (splice(file.get(), &offset, in.get(), nullptr, content.size(), 0) >= 0) return "splice was answered";
  off_t position = 0;
  if (sendfile(in.get(), file.get(), &position, content.size()) >= 0) return "sendfile was answered";
  (void)posix_fadvise(file.get(), 0, 0, POSIX_FADV_WILLNEED);

  for (const int kind : {MAP_PRIVATE, MAP_SHARED}) {
    void* const map = mmap(nullptr, content.size(), PROT_READ, kind, file.get(), 0);
    if (map == MAP_FAILED) continue;  // refused altogether, as kernels before 6.6 do with MAP_SHARED
    // The kernel touches the page for us: EFAULT where a program would get SIGBUS.
    const ssize_t written = write(in.get(), map, content.size());
    const int error = errno;
    unsigned char resident = 0;
    const bool isResident = mincore(map, content.size(), &resident) == 0 && (resident & 1) != 0;
    munmap(map, content.size());
    if (written >= 0) return "a mapping was filled";
    if (error != EFAULT) return "a mapping: " + words(error);
    if (isResident) return "a page is in the page cache";
  }
  return "";
}

}  // namespace inro
