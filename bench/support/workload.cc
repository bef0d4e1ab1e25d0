// The workload of `npm run bench -- swarm`, the same for both systems: a process that wants to know what its secret is now. It
// opens and reads FILE every half a millisecond, and tells whoever listens on the unix socket when that gives something else
// than before. Alone in its image, so linked statically.
//
//   workload NAME FILE SOCKET
//
// A line for each change: ns of CLOCK_MONOTONIC, NAME@HOSTNAME, the file's text or `!` and the errno.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace {

constexpr long everyNs = 500'000;

std::uint64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

std::string look(const char* path) {
  char room[4096];
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "!" + std::to_string(errno);
  const ssize_t bytes = read(fd, room, sizeof room);
  const std::string seen = bytes < 0 ? "!" + std::to_string(errno) : std::string(room, static_cast<std::size_t>(bytes));
  close(fd);
  return seen;
}

int connectTo(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address.sun_path) return -1;
  strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return fd >= 0 && connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

// Nobody listens any more: it has no reason to be there.
bool isGone(int fd) {
  char byte;
  return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  // The first process of a container ends on no signal that it has not asked for.
  signal(SIGTERM, [](int) { _exit(0); });
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1UL);  // else the kernel adds 50 us to each pause
  const int out = connectTo(arguments[3]);
  if (out < 0) {
    fprintf(stderr, "%s: %s\n", arguments[3], strerror(errno));
    return 1;
  }
  char host[65] = "";
  gethostname(host, sizeof host - 1);
  const std::string who = std::string(arguments[1]) + "@" + host;
  std::string before;
  while (!isGone(out)) {
    std::string seen = look(arguments[2]);
    if (seen != before) {
      const std::string line = std::to_string(now()) + " " + who + " " + seen + "\n";
      if (send(out, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) return 1;
      before = std::move(seen);
    }
    const timespec pause{0, everyNs};
    nanosleep(&pause, nullptr);
  }
  return 0;
}
