// Credentials as systemd asks for them: who is named by an address, and what comes: all of a value, or more than systemd takes.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>

#include "check.h"
#include "credentials.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

std::string parsed(const std::string& address) {
  const auto name = parseCredentialName(address);
  return name ? name->unit + " " + name->id : "-";
}

std::string zero(const std::string& text) { return std::string(1, '\0') + text; }

struct World {
  std::string folder = "/tmp/credentials-XXXXXX";
  std::string path;
  std::unique_ptr<Core> core = newCore(8 << 20);
  Builder build{*core};
  std::mutex lock;
  std::condition_variable changed;
  bool waiting = false;
  std::unique_ptr<CredentialServer> server;

  explicit World(std::size_t maxConnections = CredentialServer::defaultMaxConnections,
                 std::uint64_t slowMs = CredentialServer::defaultSlowMs) {
    if (mkdtemp(folder.data()) == nullptr) std::abort();
    path = folder + "/credentials.sock";
    std::string error;
    const int listening = listenForCredentials(path, error);
    CHECK_IS(error, "");
    CHECK(listensForCredentials(listening, path));
    CHECK(!listensForCredentials(listening, path + "2"));
    const auto onWaiting = [this] {
      const std::scoped_lock guard(lock);
      waiting = true;
      changed.notify_all();
    };
    server = CredentialServer::start(*core, listening, onWaiting, error, maxConnections, slowMs);
    CHECK_IS(error, "");
  }
  ~World() {
    server.reset();
    unlink(path.c_str());
    rmdir(folder.c_str());
  }
  std::uint64_t file(const std::string& text) {
    const std::uint64_t node = build.file(text);
    build.fill(rootNode, {{"file", node}});
    CHECK_IS(build.commit(), "");
    return node;
  }
  int connectAs(const std::string& address) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un own{};
    own.sun_family = AF_UNIX;
    std::memcpy(own.sun_path, address.data(), address.size());
    if (!address.empty()) bind(fd, reinterpret_cast<sockaddr*>(&own), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size()));
    sockaddr_un there{};
    there.sun_family = AF_UNIX;
    std::memcpy(there.sun_path, path.data(), path.size());
    CHECK_IS(connect(fd, reinterpret_cast<sockaddr*>(&there), sizeof there), 0);
    shutdown(fd, SHUT_WR);
    return fd;
  }
  // The next that asks.
  CredentialServer::Request next() {
    for (;;) {
      if (const auto request = server->accept()) return *request;
      std::unique_lock guard(lock);
      changed.wait(guard, [this] { return waiting; });
      waiting = false;
    }
  }
};

// To the end, as systemd reads: no more than it takes, and a byte. Closes.
std::string readAll(int fd) {
  std::string all;
  std::string chunk(65536, '\0');
  while (all.size() <= maxCredentialBytes) {
    const ssize_t got = read(fd, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    all.append(chunk.data(), static_cast<std::size_t>(got));
  }
  close(fd);
  return all;
}

void names() {
  CHECK_IS(parsed(zero("1f/unit/nginx.service/db")), "nginx.service db");
  CHECK_IS(parsed(zero("0123456789abcdef/unit/a@b\\x2fc.service/x.y")), "a@b\\x2fc.service x.y");
  CHECK_IS(parsed(zero("1/unit/a/unit/b/c")), "a/unit/b c");
  for (const char* const text : {"", "1", "1/unit/", "1/unit/a", "1/unit//", "1/unit//x", "1/unit/a/", "/unit/a/b", "g/unit/a/b",
                                 "A/unit/a/b", "01234567890abcdef/unit/a/b", "1/unit/a b/c", "1/unit/a/c\n", "1/units/a/b"})
    CHECK_IS(parsed(zero(text)), "-");
  CHECK_IS(parsed(""), "-");
  CHECK_IS(parsed("/1/unit/a/b"), "-");
}

void gives() {
  World world;
  const std::uint64_t small = world.file("value");
  const int one = world.connectAs(zero("1/unit/a.service/x1"));
  const auto request = world.next();
  CHECK_IS(request.pid, static_cast<std::uint32_t>(getpid()));
  CHECK_IS(request.uid, getuid());
  CHECK(request.trusted);
  CHECK_IS(request.name->unit + request.name->id, "a.servicex1");
  CHECK(world.server->give(request.connection, small) == AccessOutcome::opened);
  CHECK_IS(readAll(one), "value");
  CHECK(world.server->give(request.connection, small) == AccessOutcome::wiped);  // it has its answer

  std::string large(maxCredentialBytes, '\0');
  for (std::size_t i = 0; i < large.size(); i++) large[i] = static_cast<char>(i * 7 >> 3);
  const std::uint64_t node = world.file(large);
  const int two = world.connectAs(zero("2/unit/a.service/x2"));
  CHECK(world.server->give(world.next().connection, node) == AccessOutcome::opened);
  CHECK(readAll(two) == large);
  CHECK_IS(world.server->facts().connections, 0U);
}

void refuses() {
  World world;
  const int one = world.connectAs("");
  const auto request = world.next();
  CHECK(!request.name);
  world.server->refuse(request.connection, "no");
  const std::string said = readAll(one);
  CHECK_IS(said.size(), maxCredentialBytes + 1);
  CHECK_IS(said.substr(0, 6), "no\nno\n");

  const std::uint64_t node = world.file("value");
  const int two = world.connectAs(zero("2/unit/a.service/y"));
  const auto second = world.next();
  world.core->serveUntil(1);
  CHECK(world.server->give(second.connection, node) == AccessOutcome::leaseOver);
  CHECK(world.server->give(second.connection, 12345) == AccessOutcome::wiped);
  world.server->refuse(second.connection, "");
  CHECK_IS(readAll(two).size(), maxCredentialBytes + 1);

  // Who goes away before he has read.
  const int three = world.connectAs(zero("3/unit/a.service/y"));
  const auto third = world.next();
  close(three);
  world.server->refuse(third.connection, "no");
  CHECK_IS(world.server->facts().connections, 0U);
}

// A wipe does not wait for who does not read, and what comes after it is not the value's.
void wipedOnItsWay() {
  World world;
  const std::string large(maxCredentialBytes, 'v');
  const Arena::PieceId piece = world.build.value(large);
  const std::uint64_t node = world.build.file(piece, large.size());
  world.build.fill(rootNode, {{"file", node}});
  CHECK_IS(world.build.commit(), "");
  const int fd = world.connectAs(zero("1/unit/a.service/z"));
  CHECK(world.server->give(world.next().connection, node) == AccessOutcome::opened);
  CHECK_IS(world.server->facts().connections, 1U);
  CHECK(world.core->release(piece) == Released::done);
  const std::string got = readAll(fd);
  CHECK_IS(got.size(), maxCredentialBytes + 1);
  CHECK(got.find("wiped meanwhile") != got.npos);
  CHECK(got.find("wiped") > 0 && got.find_last_of('v') < large.size());
}

// Places are few; who does not read gives his up to who waits.
void makesRoom() {
  World world(2, 50);
  const std::uint64_t node = world.file(std::string(maxCredentialBytes, 'v'));
  const int slow = world.connectAs(zero("1/unit/a.service/s1"));
  CHECK(world.server->give(world.next().connection, node) == AccessOutcome::opened);
  const int other = world.connectAs(zero("2/unit/a.service/s2"));
  CHECK(world.server->give(world.next().connection, node) == AccessOutcome::opened);
  const int third = world.connectAs(zero("3/unit/a.service/s3"));
  const auto request = world.next();  // comes when the first is cut off
  CHECK_IS(request.name->id, "s3");
  CHECK(world.server->facts().cutOff > 0);
  world.server->refuse(request.connection, "no");
  CHECK_IS(readAll(third).size(), maxCredentialBytes + 1);
  close(slow);
  close(other);
}

void manyAtOnce() {
  World world;
  const std::string text(300'000, 'v');
  const std::uint64_t node = world.file(text);
  constexpr int count = 200;
  std::atomic<int> right{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 4; reader++) {
    readers.emplace_back([&, reader] {
      for (int i = reader; i < count; i += 4) {
        const std::string got = readAll(world.connectAs(zero(std::to_string(i) + "/unit/a.service/" + (i % 3 == 0 ? "no" : "yes"))));
        if (i % 3 == 0 ? got.size() > maxCredentialBytes : got == text) right++;
      }
    });
  }
  for (int i = 0; i < count; i++) {
    const auto request = world.next();
    if (request.name->id == "yes") CHECK(world.server->give(request.connection, node) == AccessOutcome::opened);
    else world.server->refuse(request.connection, "no");
  }
  for (std::thread& reader : readers) reader.join();
  CHECK_IS(right.load(), count);
}

// What waits when a server ends waits for the next one on the same socket; what is on its way comes whole.
void another() {
  World world;
  const std::string large(maxCredentialBytes, 'v');
  const std::uint64_t node = world.file(large);
  const int first = world.connectAs(zero("1/unit/a.service/e1"));
  CHECK(world.server->give(world.next().connection, node) == AccessOutcome::opened);
  const int second = world.connectAs(zero("2/unit/a.service/e2"));
  std::string error;
  CHECK_IS(listenForCredentials(world.path, error), -1);
  CHECK_IS(error, "another program listens there");
  std::thread reader([&] { CHECK(readAll(first) == large); });
  world.server.reset();
  reader.join();
  // Nobody has the socket any more: who waited is told, and does not take it for an empty value.
  char byte;
  CHECK_IS(read(second, &byte, 1), -1);
  CHECK_IS(errno, ECONNRESET);
  close(second);
  const int again = listenForCredentials(world.path, error);
  CHECK(again >= 0);
  struct stat found {};
  CHECK_IS(lstat(world.path.c_str(), &found), 0);
  CHECK_IS(found.st_mode & 0777U, 0600U);
  close(again);
}

}  // namespace

int main() {
  run("an address names a unit and a credential, or nothing", names);
  run("a value comes whole, also one of 1 MiB", gives);
  run("who is refused gets more than systemd takes", refuses);
  run("a value that is wiped on its way", wipedOnItsWay);
  run("who does not read makes room", makesRoom);
  run("many at once", manyAtOnce);
  run("the end of one server, and the next one", another);
  return result();
}
