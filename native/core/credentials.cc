#include "credentials.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <shared_mutex>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

namespace inro {
namespace {

constexpr std::size_t chunkBytes = 64 * 1024;
constexpr std::size_t maxHexDigits = 16;
constexpr std::uint64_t drainMs = 1'000;
constexpr std::uint64_t errorPauseMs = 50;
// Bound here first, then moved into its place.
constexpr std::string_view newSuffix = ".new";

std::string words(const char* call) { return std::string(call) + ": " + std::generic_category().message(errno); }

bool addressOf(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

bool isHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool somebodyListens(const sockaddr_un& address) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const int failed = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  close(fd);
  return failed == 0 || failed == EAGAIN;  // EAGAIN: many wait there already
}

// For poll(2): it may come back late, but not early.
int msUntil(std::uint64_t thenMs) {
  const std::uint64_t nowMs = boottimeMs();
  return nowMs >= thenMs ? 0 : static_cast<int>(thenMs - nowMs) + 1;
}

}  // namespace

std::optional<CredentialName> parseCredentialName(std::string_view address) {
  constexpr std::string_view mark = "/unit/";
  if (address.empty() || address[0] != '\0') return std::nullopt;
  address.remove_prefix(1);
  const std::size_t at = address.find(mark);
  if (at == address.npos || at == 0 || at > maxHexDigits || !std::ranges::all_of(address.substr(0, at), isHex)) return std::nullopt;
  address.remove_prefix(at + mark.size());
  // Names of units may have a '/' in nothing but their escapes, names of credentials none at all.
  const std::size_t last = address.rfind('/');
  if (last == address.npos || last == 0 || last + 1 == address.size()) return std::nullopt;
  if (!std::ranges::all_of(address, [](char c) { return c > ' ' && c < '\x7f'; })) return std::nullopt;
  return CredentialName{std::string(address.substr(0, last)), std::string(address.substr(last + 1))};
}

int listenForCredentials(const std::string& path, std::string& error) {
  const std::string made = path + std::string(newSuffix);
  sockaddr_un address{};
  sockaddr_un old{};
  if (!addressOf(made, address) || !addressOf(path, old)) {
    error = "the path of the socket is too long";
    return -1;
  }
  if (somebodyListens(old)) {
    error = "another program listens there";
    return -1;
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    error = words("socket");
    return -1;
  }
  unlink(made.c_str());  // of a process that was killed
  const char* step = nullptr;
  // Its mode before it has a name: nobody gets in between.
  if (fchmod(fd, S_IRUSR | S_IWUSR) != 0) step = "fchmod";
  else if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) step = "bind";
  else if (listen(fd, SOMAXCONN) != 0) step = "listen";
  else if (rename(made.c_str(), path.c_str()) != 0) step = "rename";
  if (step == nullptr) return fd;
  error = words(step);
  unlink(made.c_str());
  close(fd);
  return -1;
}

bool listensForCredentials(int fd, const std::string& path) {
  int listening = 0;
  socklen_t bytes = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) != 0 || listening == 0) return false;
  sockaddr_un wanted{};
  sockaddr_un own{};
  bytes = sizeof own;
  if (!addressOf(path + std::string(newSuffix), wanted)) return false;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&own), &bytes) != 0 || own.sun_family != AF_UNIX) return false;
  if (std::strncmp(own.sun_path, wanted.sun_path, sizeof own.sun_path) != 0) return false;
  struct stat found {};
  return lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode);
}

CredentialServer::CredentialServer(Core& core, int listening, std::function<void()> onWaiting, std::size_t maxConnections,
                                   std::uint64_t slowMs)
    : core_(core),
      listening_(listening),
      onWaiting_(std::move(onWaiting)),
      maxConnections_(maxConnections),
      slowMs_(slowMs) {}

std::unique_ptr<CredentialServer> CredentialServer::start(Core& core, int listening, std::function<void()> onWaiting,
                                                          std::string& error, std::size_t maxConnections, std::uint64_t slowMs) {
  std::unique_ptr<CredentialServer> server(
      new CredentialServer(core, listening, std::move(onWaiting), maxConnections, slowMs));
  const int flags = fcntl(listening, F_GETFL);
  if (flags < 0 || fcntl(listening, F_SETFL, flags | O_NONBLOCK) != 0) {
    error = words("fcntl");
    return nullptr;
  }
  server->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (server->wake_ < 0) {
    error = words("eventfd");
    return nullptr;
  }
  auto thread = Thread::start([raw = server.get()] { raw->work(); }, error);
  if (!thread) return nullptr;
  server->thread_.emplace(std::move(*thread));
  return server;
}

CredentialServer::~CredentialServer() {
  {
    const std::scoped_lock guard(lock_);
    stopping_ = true;
  }
  if (wake_ >= 0) wake();
  thread_.reset();  // waits for its end
  for (const auto& [id, connection] : connections_) close(connection.fd);
  if (wake_ >= 0) close(wake_);
  close(listening_);
}

void CredentialServer::wake() const {
  const std::uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);  // full: it is awake
}

std::optional<CredentialServer::Request> CredentialServer::accept() {
  const std::scoped_lock guard(lock_);
  int fd = -1;
  sockaddr_un address{};
  socklen_t bytes = sizeof address;
  if (connections_.size() < maxConnections_ && !stopping_) {
    do {
      fd = accept4(listening_, reinterpret_cast<sockaddr*>(&address), &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  }
  if (fd < 0) {
    // No descriptor is free, or no memory: who waits goes on waiting.
    if (connections_.size() < maxConnections_ && errno != EAGAIN) pausedUntilMs_ = boottimeMs() + errorPauseMs;
    armed_ = true;
    wake();
    return std::nullopt;
  }
  Connection connection;
  connection.fd = fd;
  connection.sinceMs = boottimeMs();
  const std::uint64_t id = nextConnection_++;
  connections_.emplace(id, std::move(connection));
  // As it was when the other side connected (unix(7)). It waits for the answer: its pid is its own.
  ucred peer{};
  socklen_t peerBytes = sizeof peer;
  const bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peerBytes) == 0;
  const std::size_t nameBytes = std::min<std::size_t>(bytes, sizeof address) - std::min<std::size_t>(bytes, offsetof(sockaddr_un, sun_path));
  return Request{id,
                 peer.uid,
                 peer.gid,
                 static_cast<std::uint32_t>(std::max(peer.pid, 0)),
                 known && (peer.uid == 0 || peer.uid == geteuid()),
                 parseCredentialName({address.sun_path, nameBytes})};
}

AccessOutcome CredentialServer::give(std::uint64_t id, std::uint64_t node) {
  const std::scoped_lock guard(lock_);
  const auto at = connections_.find(id);
  if (at == connections_.end() || at->second.answered) return AccessOutcome::wiped;
  {
    const std::shared_lock reading(core_.lock());
    const AccessOutcome outcome = core_.readable(node).outcome;
    if (outcome != AccessOutcome::opened) return outcome;
  }
  at->second.node = node;
  at->second.answered = true;
  advance(at);
  return AccessOutcome::opened;
}

void CredentialServer::refuse(std::uint64_t id, const std::string& why) {
  const std::scoped_lock guard(lock_);
  const auto at = connections_.find(id);
  if (at == connections_.end() || at->second.answered) return;
  at->second.words = why.empty() ? "refused" : why;
  at->second.answered = true;
  advance(at);
}

CredentialServer::Facts CredentialServer::facts() {
  const std::scoped_lock guard(lock_);
  return {connections_.size(), cutOff_};
}

void CredentialServer::advance(std::map<std::uint64_t, Connection>::iterator at) {
  if (push(at->second) == Push::done) {
    close(at->second.fd);
    connections_.erase(at);
  }
  wake();
}

// The kernel copies straight from the arena; the lock is held no longer than for one chunk. `ended`: all of it is sent.
ssize_t CredentialServer::sendValue(Connection& connection, bool& ended) {
  const std::shared_lock reading(core_.lock());
  const auto [outcome, bytes] = core_.readable(connection.node);
  if (outcome != AccessOutcome::opened) {
    errno = ESTALE;
    return -1;
  }
  const auto rest = bytes.subspan(std::min(connection.sent, bytes.size()));
  ended = rest.empty();
  if (ended) return 0;
  return send(connection.fd, rest.data(), std::min(rest.size(), chunkBytes), MSG_DONTWAIT | MSG_NOSIGNAL);
}

CredentialServer::Push CredentialServer::push(Connection& connection) {
  std::string text;
  for (;;) {
    ssize_t sent;
    bool ended = false;
    const bool isRefusal = !connection.words.empty();
    if (isRefusal) {
      if (connection.sent > maxCredentialBytes) return Push::done;
      while (text.size() < chunkBytes) text += connection.words + "\n";
      const std::size_t left = maxCredentialBytes + 1 - connection.sent;
      sent = send(connection.fd, text.data(), std::min(text.size(), left), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      sent = sendValue(connection, ended);
      if (ended) return Push::done;
    }
    if (sent >= 0) {
      connection.sent += static_cast<std::size_t>(sent);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return Push::waits;
    if (errno == EPIPE || errno == ECONNRESET || isRefusal) return Push::done;
    // Its end would count as whole.
    connection.words = errno == ESTALE ? "the value was wiped meanwhile" : words("send");
  }
}

// To be called where there are as many as can be: somebody waits for a place, perhaps.
void CredentialServer::cutOffSlowest() {
  const auto oldest = connections_.begin();
  if (oldest == connections_.end() || boottimeMs() < oldest->second.sinceMs + slowMs_) return;
  close(oldest->second.fd);
  connections_.erase(oldest);
  cutOff_++;
}

void CredentialServer::work() {
  std::vector<pollfd> polled;
  std::vector<std::uint64_t> ids;
  std::optional<std::uint64_t> stopAtMs;
  for (;;) {
    polled.assign(1, {wake_, POLLIN, 0});
    ids.assign(1, 0);
    int timeoutMs = -1;
    {
      const std::scoped_lock guard(lock_);
      if (connections_.size() >= maxConnections_) cutOffSlowest();
      if (stopping_) {
        if (!stopAtMs) stopAtMs = boottimeMs() + drainMs;
        if (connections_.empty() || boottimeMs() >= *stopAtMs) return;
        timeoutMs = msUntil(*stopAtMs);
      } else if (connections_.size() >= maxConnections_) {
        timeoutMs = msUntil(connections_.begin()->second.sinceMs + slowMs_);
      } else if (armed_ && boottimeMs() < pausedUntilMs_) {
        timeoutMs = msUntil(pausedUntilMs_);
      } else if (armed_) {
        polled.push_back({listening_, POLLIN, 0});
        ids.push_back(0);
      }
      for (const auto& [id, connection] : connections_) {
        if (!connection.answered) continue;
        polled.push_back({connection.fd, POLLOUT, 0});
        ids.push_back(id);
      }
    }
    if (poll(polled.data(), polled.size(), timeoutMs) < 0 && errno != EINTR) {
      poll(nullptr, 0, static_cast<int>(errorPauseMs));  // no memory: not in a circle
      continue;
    }
    std::uint64_t count;
    (void)!read(wake_, &count, sizeof count);
    bool isWaiting = false;
    {
      const std::scoped_lock guard(lock_);
      for (std::size_t i = 1; i < polled.size(); i++) {
        if (polled[i].revents == 0) continue;
        if (ids[i] == 0) {
          isWaiting = armed_;
          armed_ = false;
        } else if (const auto at = connections_.find(ids[i]); at != connections_.end()) {
          if (push(at->second) == Push::waits) continue;
          close(at->second.fd);
          connections_.erase(at);
        }
      }
    }
    if (isWaiting) onWaiting_();
  }
}

}  // namespace inro
