// What one process leaves to the next: notes, directories without a name, memory that is let go, descriptors on their way.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <thread>

#include "check.h"
#include "descriptor_passing.h"
#include "descriptor_store.h"
#include "fake_channel.h"
#include "server.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

constexpr std::size_t nodes = 64;
constexpr std::size_t heapBytes = 64 * 1024;

std::span<std::byte> memory() {
  const std::size_t bytes = layoutOf(nodes).heapOffset + heapBytes;
  void* const start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) std::abort();
  return {static_cast<std::byte*>(start), bytes};
}

std::unique_ptr<Core> coreOn(std::span<std::byte> bytes) {
  std::string error;
  auto core = Core::createOn(LockedMapping::borrow(bytes), {heapBytes, true, nodes, 0, 0}, error);
  if (!core) std::abort();
  core->serveUntil(forEver);
  Kernel(*core).init();
  return core;
}

std::unique_ptr<Core> adopted(std::span<std::byte> bytes, std::string& error) {
  return Core::adopt(LockedMapping::borrow(bytes), error);
}

std::string noteOf(Core& core, std::uint64_t id) {
  const Image& image = core.nodes().image();
  const NodeRecord* const node = image.find(id);
  return node == nullptr ? "no node" : std::string(image.note(*node));
}

bool holds(std::span<const std::byte> bytes, std::string_view text) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return all.find(text) != all.npos;
}

std::string temporary() {
  std::string path = "/tmp/inro-handover-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) std::abort();
  return path;
}

}  // namespace

int main() {
  run("notes go with their nodes: a successor reads them, and they are zeroed when the node goes", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    Builder build(*core);
    const auto key = build.file("a value");
    build.step.made.back().note = "note of the key";
    const auto web = build.directory();
    build.step.made.back().note = std::string(5000, 'n');
    const auto bare = build.directory();
    build.fill(web, {{"key", key}});
    build.fill(rootNode, {{"web", web}, {"bare", bare}});
    CHECK_IS(build.commit(), "");
    const auto used = core->use().usedBytes;
    core->letGo();
    core.reset();
    std::string error;
    core = adopted(bytes, error);
    CHECK_IS(error, "");
    CHECK_IS(noteOf(*core, key), "note of the key");
    CHECK_IS(noteOf(*core, web), std::string(5000, 'n'));
    CHECK_IS(noteOf(*core, bare), "");
    CHECK_IS(core->use().usedBytes, used);
    const auto value = core->valueOf(key);
    CHECK(value && value->bytes.size() == 32 + 7);
    CHECK(!core->valueOf(web));

    Builder again(*core);
    again.step.removed.emplace_back(web, "key");
    again.step.gone = {key};
    CHECK_IS(again.commit(), "");
    CHECK(!holds(bytes, "note of the key"));
    core->release(value->id);
    CHECK(!holds(bytes, "a value"));
  });

  run("a note that does not fit refuses its step; nothing of it stays", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    const auto used = core->use().usedBytes;
    Builder build(*core);
    const auto a = build.directory();
    build.step.made.back().note = "a small one that fits";
    const auto b = build.link("text of the link");
    build.step.made.back().note = std::string(heapBytes, 'x');
    build.fill(rootNode, {{"a", a}, {"b", b}});
    CHECK(build.commit().find("no room") != std::string::npos);
    CHECK_IS(core->use().usedBytes, used);
    CHECK(!holds(bytes, "a small one that fits") && !holds(bytes, "text of the link"));
    const auto c = build.directory();
    build.step.made.back().note = std::string(maxNoteBytes + 1, 'x');
    build.fill(rootNode, {{"c", c}});
    CHECK(!build.commit().empty());
  });

  run("damaged notes are refused", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    Builder build(*core);
    const auto a = build.directory();
    build.step.made.back().note = "a note";
    const auto b = build.directory();
    build.step.made.back().note = "another";
    build.fill(rootNode, {{"a", a}, {"b", b}});
    CHECK_IS(build.commit(), "");
    core->letGo();
    NodeRecord& record = *core->nodes().image().find(a);
    const NodeRecord& other = *core->nodes().image().find(b);
    const std::uint64_t good = record.note;
    const std::uint64_t goodBytes = record.noteBytes;
    const auto refused = [&](std::uint64_t note, std::uint64_t length) {
      record.note = note;
      record.noteBytes = length;
      std::string error;
      CHECK(!adopted(bytes, error));
      CHECK(error.find("damaged") != error.npos);
      record.note = good;
      record.noteBytes = goodBytes;
    };
    refused(0, 5);
    refused(good, 0);
    refused(good, maxNoteBytes + 1);
    refused(good + 1, goodBytes);
    refused(64, 8);                     // in the header
    refused(bytes.size(), 8);
    refused(other.note, goodBytes);     // two nodes, one note
    std::string error;
    CHECK(adopted(bytes, error) != nullptr);
  });

  run("a kept directory and what is in it stay without a name; others go", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    Builder build(*core);
    const auto key = build.file("kept value");
    const auto old = build.directory();
    build.step.made.back().kept = true;
    build.fill(old, {{"key", key}});
    const auto lost = build.directory();
    build.fill(rootNode, {{"web", old}, {"lost", lost}});
    CHECK_IS(build.commit(), "");
    const auto next = build.directory();
    build.fill(rootNode, {{"web", next}});
    CHECK_IS(build.commit(), "");
    core->letGo();
    core.reset();
    std::string error;
    core = adopted(bytes, error);
    CHECK_IS(error, "");
    core->serveUntil(forEver);
    Kernel kernel(*core);
    CHECK_IS(kernel.walk("web"), next);
    CHECK_IS(kernel.lookup(old, "key").as<fuse::EntryOut>().nodeid, key);
    CHECK_IS(kernel.read(key).body, "kept value");
    CHECK(core->nodes().image().find(lost) == nullptr);
    Builder end(*core);
    end.step.gone = {old, key};
    CHECK_IS(end.commit(), "");
    core->letGo();
    core.reset();
    core = adopted(bytes, error);
    CHECK(core->nodes().image().find(old) == nullptr);
  });

  run("a probe is readable without a lease, nothing else is", [] {
    auto core = coreOn(memory());
    Builder build(*core);
    const auto probe = build.file("no secret");
    build.step.made.back().probe = true;
    const auto key = build.file("a secret");
    build.fill(rootNode, {{"probe", probe}, {"key", key}});
    CHECK_IS(build.commit(), "");
    core->serveUntil(0);
    Kernel kernel(*core);
    kernel.init();
    CHECK_IS(kernel.read(probe).body, "no secret");
    CHECK_IS(kernel.read(key).error, ESTALE);
    CHECK_IS(kernel.open(key).error, ESTALE);
  });

  run("a file's lease may end earlier or later than the arena's; no file outlives the end of all service", [] {
    auto core = coreOn(memory());
    Builder build(*core);
    const auto make = [&](const char* text, std::int64_t shiftMs) {
      const auto id = build.file(text);
      build.step.made.back().leaseShiftMs = shiftMs;
      return id;
    };
    const auto normal = make("normal", 0);
    const auto shorter = make("shorter", -1'000'000);
    const auto longer = make("longer", 1'000'000);
    const auto never = make("never", std::numeric_limits<std::int64_t>::max());
    build.fill(rootNode, {{"a", normal}, {"b", shorter}, {"c", longer}, {"d", never}});
    CHECK_IS(build.commit(), "");
    Kernel kernel(*core);
    kernel.init();
    const auto readable = [&] {
      std::string all;
      for (const auto id : {normal, shorter, longer, never}) all += kernel.read(id).error == 0 ? '1' : '0';
      return all;
    };
    core->serveUntil(boottimeMs() + 500'000);
    CHECK_IS(readable(), "1011");
    core->serveUntil(boottimeMs() + 1'500'000);
    CHECK_IS(readable(), "1111");
    core->serveUntil(boottimeMs() - 500'000);
    CHECK_IS(readable(), "0011");
    core->serveUntil(1);
    CHECK_IS(readable(), boottimeMs() < 1'000'000 ? "0011" : "0001");
    core->serveUntil(0);
    CHECK_IS(readable(), "0000");
  });

  run("what was let go is not changed any more, whatever is called", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    Builder build(*core);
    const auto piece = build.value("a value");
    const auto key = build.file(piece, 7);
    build.fill(rootNode, {{"key", key}});
    CHECK_IS(build.commit(), "");
    const auto reserved = core->reserve();
    core->letGo();
    const std::vector<std::byte> before(bytes.begin(), bytes.end());
    CHECK(core->release(piece) == Released::notOut);
    CHECK(!core->alloc(1));
    CHECK(!core->reserve());
    core->giveBack(*reserved);
    core->serveUntil(1);
    std::string error;
    CHECK(!core->commit({}, error));
    CHECK(error.find("another process") != error.npos);
    core->wipe();
    core.reset();
    CHECK(std::equal(before.begin(), before.end(), bytes.begin()));
    core = adopted(bytes, error);
    core->serveUntil(forEver);
    CHECK_IS(Kernel(*core).content("key"), "a value");
  });

  run("memory is taken by its descriptor, and only if it is such memory", [] {
    std::string error;
    auto core = Core::create({heapBytes, true, nodes, 0, 0}, error);
    const int fd = core->mapping().descriptor();
    CHECK(fd >= 0);
    core->serveUntil(forEver);
    Kernel(*core).init();
    Builder build(*core);
    build.fill(rootNode, {{"key", build.file("in memfd_secret")}});
    CHECK_IS(build.commit(), "");
    const int given = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    core->letGo();
    core.reset();
    CHECK_IS(fcntl(fd, F_GETFD), -1);  // its own went with it
    const auto least = layoutOf(firstFreeSlot).heapOffset;
    auto mapping = LockedMapping::adopt(given, least, std::size_t{1} << 30, error);
    CHECK(mapping && mapping->descriptor() == given && mapping->kind() == MappingKind::memfdSecret);
    core = Core::adopt(std::move(*mapping), error);
    CHECK(core != nullptr);
    core->serveUntil(forEver);
    CHECK_IS(Kernel(*core).content("key"), "in memfd_secret");

    const auto refused = [&](int wrong, std::size_t most) {
      error.clear();
      CHECK(!LockedMapping::adopt(wrong, least, most, error));
      CHECK(!error.empty());
      CHECK_IS(fcntl(wrong, F_GETFD), -1);  // taken all the same
    };
    refused(open("/dev/zero", O_RDWR | O_CLOEXEC), std::size_t{1} << 30);
    const int plain = memfd_create("plain", MFD_CLOEXEC);
    CHECK_IS(ftruncate(plain, 1 << 20), 0);
    refused(plain, std::size_t{1} << 30);
    refused(fcntl(given, F_DUPFD_CLOEXEC, 0), 4096);  // larger than anybody would make it
    auto arena = Core::create({heapBytes, true, 0, 0, 0}, error);
    CHECK_IS(arena->mapping().descriptor(), -1);  // nobody else is to have an arena that nothing is served from
    auto fallback = Core::create({heapBytes, false, nodes, 0, 0}, error);
    CHECK_IS(fallback->mapping().descriptor(), -1);  // mlock: could be swapped out while nobody maps it
  });

  run("a connection that is taken over: what was not answered is asked again, all pollers are woken", [] {
    const auto bytes = memory();
    auto core = coreOn(bytes);
    Kernel before(*core);
    Builder build(*core);
    const auto key = build.file("v");
    build.fill(rootNode, {{"key", key}});
    CHECK_IS(build.commit(), "");
    before.poll(key, 7, 100);
    before.poll(key, 8, 101);
    core->letGo();
    core.reset();
    std::string error;
    core = adopted(bytes, error);
    FakeDevice device;
    auto server = Server::start(*core, std::make_unique<FakeChannel>(device), 2, fuse::newestMinor, error);
    CHECK(server && server->waitReady(1000, error));
    CHECK(server->takeOver(error));
    CHECK_IS(device.notices(fuse::Notice::resend), 1);
    CHECK_IS(device.notices(fuse::Notice::poll), 2);
    device.onSend = [](std::string_view message) {
      return FakeDevice::errorOf(message) == static_cast<std::int32_t>(fuse::Notice::resend) ? EINVAL : 0;
    };
    CHECK(!server->takeOver(error));  // an older kernel
    CHECK(error.find("does not repeat") != error.npos);
    server.reset();
  });

  run("descriptors go from process to process", [] {
    const std::string folder = temporary();
    const std::string path = folder + "/s";
    std::string error;
    auto receiver = DescriptorReceiver::listen(path, error);
    CHECK(receiver.has_value());
    struct stat found {};
    CHECK(stat(path.c_str(), &found) == 0 && (found.st_mode & 0777) == 0600);
    CHECK(!DescriptorReceiver::listen(path, error));  // it is taken
    std::array<int, 2> ends{};
    CHECK_IS(pipe2(ends.data(), O_CLOEXEC), 0);
    std::string said = "not tried";
    std::thread sender([&] { said = passDescriptors(path, ends, 1000); });
    const std::vector<int> got = receiver->receive(1000, error);
    sender.join();
    CHECK_IS(said, "");
    CHECK_IS(got.size(), std::size_t{2});
    CHECK(got.size() == 2 && write(got[1], "x", 1) == 1);
    char byte = 0;
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    CHECK((fcntl(got[0], F_GETFD) & FD_CLOEXEC) != 0);

    CHECK(receiver->receive(20, error).empty());  // nobody comes
    CHECK(error.find("nobody sent") != error.npos);
    receiver.reset();
    CHECK(stat(path.c_str(), &found) != 0);  // gone with it
    CHECK(!passDescriptors(path, ends, 20).empty());
    CHECK(!passDescriptors(folder + std::string(200, 'p'), ends, 20).empty());
    CHECK(!passDescriptors(path, {}, 20).empty());
    rmdir(folder.c_str());
  });

  run("neither side deals with another user", [] {
    if (getuid() != 0) return;
    const std::string folder = temporary();
    chmod(folder.c_str(), 0777);
    const std::string path = folder + "/s";
    // The receiver is another user: a process that may be root's must not send to it.
    const pid_t child = fork();
    if (child == 0) {
      if (setuid(61001) != 0) _exit(2);
      std::string error;
      auto receiver = DescriptorReceiver::listen(path, error);
      _exit(receiver && receiver->receive(3000, error).empty() ? 0 : 1);
    }
    struct stat found {};
    for (int i = 0; i < 300 && stat(path.c_str(), &found) != 0; i++) usleep(10'000);
    usleep(50'000);
    std::array<int, 1> one{0};
    CHECK(passDescriptors(path, one, 1000).find("user 61001") != std::string::npos);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK_IS(WEXITSTATUS(status), 0);
    rmdir(folder.c_str());
  });

  run("a service manager is told, with a descriptor, and awaited", [] {
    const std::string folder = temporary();
    const std::string path = folder + "/notify";
    unsetenv("NOTIFY_SOCKET");
    CHECK_IS(notifyServiceManager("READY=1"), ENOENT);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
    CHECK(notifyServiceManager("READY=1") != 0);
    const int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    CHECK_IS(bind(manager, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    CHECK_IS(notifyServiceManager("FDSTORE=1\nFDNAME=a\n", 0), 0);
    char text[64] = {};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))];
    iovec data{text, sizeof text};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    CHECK(recvmsg(manager, &message, 0) > 0);
    CHECK_IS(std::string(text), "FDSTORE=1\nFDNAME=a\n");
    CHECK(CMSG_FIRSTHDR(&message) != nullptr);
    CHECK_IS(awaitServiceManager(30), ETIMEDOUT);
    std::thread answering([&] {
      for (int i = 0; i < 2; i++) {  // the one from before, too
        msghdr barrier{};
        alignas(cmsghdr) char more[CMSG_SPACE(sizeof(int))];
        barrier.msg_iov = &data;
        barrier.msg_iovlen = 1;
        barrier.msg_control = more;
        barrier.msg_controllen = sizeof more;
        if (recvmsg(manager, &barrier, 0) <= 0 || CMSG_FIRSTHDR(&barrier) == nullptr) return;
        int fd;
        std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&barrier)), sizeof fd);
        close(fd);
      }
    });
    CHECK_IS(awaitServiceManager(3000), 0);
    answering.join();
    close(manager);
    unlink(path.c_str());
    rmdir(folder.c_str());
    setenv("NOTIFY_SOCKET", "relative", 1);
    CHECK_IS(notifyServiceManager("READY=1"), EINVAL);
    unsetenv("NOTIFY_SOCKET");
  });

  run("what a service manager hands over is taken once, and only by whom it is meant for", [] {
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "a:b", 1);
    setenv("LISTEN_PID", "1", 1);
    CHECK(takeStored().empty());
    CHECK(getenv("LISTEN_FDS") == nullptr);
    for (const char* wrong : {"x", "-1", "999", ""}) {
      setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
      setenv("LISTEN_FDS", wrong, 1);
      CHECK(takeStored().empty());
    }
    const int kept[2] = {open("/dev/null", O_RDONLY), open("/dev/zero", O_RDONLY)};
    dup2(kept[0], 3);
    dup2(kept[1], 4);
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "a", 1);  // fewer names than descriptors
    const auto stored = takeStored();
    CHECK_IS(stored.size(), std::size_t{2});
    CHECK_IS(stored[0].name, "a");
    CHECK_IS(stored[1].name, "");
    CHECK_IS(stored[1].fd, 4);
    CHECK((fcntl(4, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(takeStored().empty());
  });

  return result();
}
