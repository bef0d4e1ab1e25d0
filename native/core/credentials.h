// Values for units of systemd. For each LoadCredential=ID:SOCKET of a unit that starts, systemd connects to the socket from an
// abstract address that names unit and credential, and reads to the end (systemd.exec(5)). There are no frames and no errors in
// this: what ends early counts as whole, nothing at all as an empty credential. So who is refused is sent more than systemd
// takes (1 MiB): then its unit does not start. Bytes go from the arena to the socket, and pass through no other memory of ours.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "access_book.h"
#include "core.h"
#include "thread.h"

namespace inro {

constexpr std::size_t maxCredentialBytes = std::size_t{1} << 20;  // CREDENTIAL_SIZE_MAX of systemd

struct CredentialName {
  std::string unit;
  std::string id;
};

// From the bytes of an address in the abstract namespace, with the zero that they begin with. Nothing for any other address.
std::optional<CredentialName> parseCredentialName(std::string_view address);

// A listening socket at this path, mode 0600, in the place of one that nobody listens on any more: there is no moment without one
// or the other. -1 when it cannot be had; then `error` says so.
int listenForCredentials(const std::string& path, std::string& error);
// Whether a descriptor is what listenForCredentials() gave another process for this path.
bool listensForCredentials(int fd, const std::string& path);

class CredentialServer {
 public:
  struct Request {
    std::uint64_t connection;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t pid;  // 0: of another pid namespace
    bool trusted;       // root, or the user who runs this
    std::optional<CredentialName> name;
  };
  struct Facts {
    std::size_t connections = 0;
    std::uint64_t cutOff = 0;  // who did not read, and had to make room
  };
  static constexpr std::size_t defaultMaxConnections = 64;
  static constexpr std::uint64_t defaultSlowMs = 30'000;

  // Takes the listening descriptor. `onWaiting` is called by the server's thread when somebody waits, and again only after
  // accept() gave nothing. Nothing when there can be no thread; then `error` says so. `maxConnections` and `slowMs` (after which
  // one who does not read may be cut off, if others wait for his place) are other than the usual ones only in tests.
  static std::unique_ptr<CredentialServer> start(Core& core, int listening, std::function<void()> onWaiting, std::string& error,
                                                 std::size_t maxConnections = defaultMaxConnections,
                                                 std::uint64_t slowMs = defaultSlowMs);
  CredentialServer(const CredentialServer&) = delete;
  CredentialServer& operator=(const CredentialServer&) = delete;
  // Gives those that read up to a second for the rest.
  ~CredentialServer();

  // Who waits first; nothing when nobody does, or when as many as can be are being answered. Each must be answered: by give() or
  // refuse(), right away, because the end of this process would be an empty credential for it.
  std::optional<Request> accept();
  // Sends a file's value. `opened`, or why it cannot be (wiped, leaseOver): then nothing is sent yet. Should it be wiped before it
  // is sent whole, the rest is a refusal.
  AccessOutcome give(std::uint64_t connection, std::uint64_t node);
  // Sends more than systemd takes: these words, again and again.
  void refuse(std::uint64_t connection, const std::string& words);
  Facts facts();

 private:
  struct Connection {
    int fd = -1;
    std::uint64_t sinceMs = 0;
    std::uint64_t node = 0;   // whose value is sent; 0: none
    std::string words;        // what is sent instead, if not empty
    std::size_t sent = 0;
    bool answered = false;
  };
  enum class Push { done, waits };

  CredentialServer(Core& core, int listening, std::function<void()> onWaiting, std::size_t maxConnections, std::uint64_t slowMs);
  void work();
  void wake() const;
  Push push(Connection& connection);
  ssize_t sendValue(Connection& connection, bool& ended);
  void advance(std::map<std::uint64_t, Connection>::iterator at);
  void cutOffSlowest();

  Core& core_;
  int listening_;
  int wake_ = -1;
  const std::function<void()> onWaiting_;
  const std::size_t maxConnections_;
  const std::uint64_t slowMs_;
  std::mutex lock_;
  std::map<std::uint64_t, Connection> connections_;  // in the order in which they came
  std::uint64_t nextConnection_ = 1;
  std::uint64_t cutOff_ = 0;
  std::uint64_t pausedUntilMs_ = 0;  // no descriptor was free
  bool armed_ = true;
  bool stopping_ = false;
  std::optional<Thread> thread_;
};

}  // namespace inro
