// The server on a kernel that misbehaves: nobody is left without an answer, and nothing is waited for that does not come.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "check.h"
#include "fake_channel.h"
#include "registers.h"
#include "server.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

struct Running {
  std::unique_ptr<Core> core = newCore();
  FakeDevice device;
  std::unique_ptr<Server> server;
  std::uint64_t nextUnique = 100;

  explicit Running(std::size_t workers = 2, std::uint64_t scrubMs = Server::defaultScrubMs) {
    std::string error;
    server = Server::start(*core, std::make_unique<FakeChannel>(device), workers, fuse::newestMinor, error, scrubMs);
    if (!server) std::abort();
  }
  ~Running() { server.reset(); }

  std::uint64_t ask(fuse::Opcode opcode, std::uint64_t node, std::string_view body = {}) {
    const auto unique = nextUnique++;
    device.ask(Kernel::bytes(opcode, node, body, unique));
    return unique;
  }
  int errorTo(std::uint64_t unique) {
    const std::string reply = device.reply(unique);
    return reply.empty() ? -1 : -FakeDevice::errorOf(reply);
  }
  void onSend(std::function<int(std::string_view)> act) {
    const std::scoped_lock guard(device.lock);
    device.onSend = std::move(act);
  }
  bool init(std::uint32_t minor = 45) {
    ask(fuse::Opcode::init, 0, Kernel::initBody(minor));
    std::string error;
    return server->waitReady(10'000, error);
  }
  std::uint64_t publish(std::string_view text, bool mappable = false) {
    Builder build(*core);
    const auto file = build.file(text, mappable);
    build.fill(rootNode, {{"key", file}});
    if (!build.commit().empty()) std::abort();
    return file;
  }
};

bool isNotice(std::string_view message, fuse::Notice notice) {
  return FakeDevice::uniqueOf(message) == 0 && FakeDevice::errorOf(message) == static_cast<int>(notice);
}

std::string readBody() {
  fuse::ReadIn in{};
  in.size = 4096;
  in.readFlags = fuse::readLockOwner;
  return Kernel::flat(in);
}

}  // namespace

int main() {
  run("versions of the protocol: older kernels are refused with words, newer ones agreed with", [] {
    for (const std::uint32_t minor : {23U, 31U, 38U, 43U, 44U, 45U, 99U}) {
      Running it;
      CHECK(it.init(minor));
      CHECK_IS(it.server->facts().negotiated.minor, std::min(minor, fuse::newestMinor));
      CHECK((it.server->facts().negotiated.flags & fuse::asyncDio) != 0);
      CHECK(it.server->facts().connected);
    }
    for (const std::uint32_t minor : {8U, 22U}) {
      Running it;
      const auto unique = it.ask(fuse::Opcode::init, 0, Kernel::initBody(minor));
      std::string error;
      CHECK(!it.server->waitReady(10'000, error));
      CHECK_IS(error, "the kernel speaks FUSE 7." + std::to_string(minor) + ", at least 7.23 is needed");
      CHECK_IS(it.errorTo(unique), EPROTO);
    }
    Running older;
    older.ask(fuse::Opcode::init, 0, Kernel::initBody(45, 6));
    std::string error;
    CHECK(!older.server->waitReady(10'000, error));
    CHECK(error.find("FUSE 6.45") != error.npos);
    // A newer major version asks again in ours.
    Running newer;
    const auto first = newer.ask(fuse::Opcode::init, 0, Kernel::initBody(0, 8));
    CHECK_IS(newer.errorTo(first), 0);
    CHECK(newer.init());
    Running cut;
    cut.ask(fuse::Opcode::init, 0, "1234");
    CHECK(!cut.server->waitReady(10'000, error));
    CHECK(error.find("is cut") != error.npos);
  });

  run("nothing is answered before INIT but with EIO", [] {
    Running it;
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::getattr, rootNode)), EIO);
    CHECK(it.init());
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::getattr, rootNode)), 0);
  });

  run("interruptions and withdrawn requests are passed over; errors in a row end the server with words", [] {
    Running it;
    CHECK(it.init());
    it.device.failReceive(EINTR, 50);
    it.device.failReceive(EAGAIN, 50);
    it.device.failReceive(ENOENT, 50);
    it.device.failReceive(ENOMEM, 20);
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::getattr, rootNode)), 0);
    it.device.failReceive(EIO, 1000);
    for (int i = 0; i < 1000 && it.server->facts().connected; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(!it.server->facts().connected);
    CHECK(it.server->facts().ended.find("reading requests fails") == 0);
    // When nobody is left to answer, readers are let go.
    for (int i = 0; i < 1000 && !it.device.ended; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(it.device.ended);
  });

  run("while one worker is left, the connection is not ended", [] {
    Running it(2);
    CHECK(it.init());
    it.device.breakOne();
    for (int i = 0; i < 1000 && it.server->facts().ended.empty(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(!it.device.ended);
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::getattr, rootNode)), 0);
  });

  run("an unmount or a stop does not end the connection once more", [] {
    {
      Running it;
      CHECK(it.init());
      it.server.reset();
      CHECK(!it.device.ended);
    }
    Running never;
    never.server.reset();
    CHECK(!never.device.ended);
  });

  run("no thread to be had: refused with words, nothing left running", [] {
    pthread_attr_t normal;
    pthread_attr_t impossible;
    pthread_getattr_default_np(&normal);
    pthread_attr_init(&impossible);
    pthread_attr_setstacksize(&impossible, std::size_t{1} << 50);
    const auto core = newCore();
    FakeDevice device;
    std::string error;
    pthread_setattr_default_np(&impossible);
    auto server = Server::start(*core, std::make_unique<FakeChannel>(device), 2, fuse::newestMinor, error);
    pthread_setattr_default_np(&normal);
    CHECK(server == nullptr);
    CHECK(error.find("no thread can be started: ") == 0);

    // Workers, but then no notifier.
    server = Server::start(*core, std::make_unique<FakeChannel>(device), 2, fuse::newestMinor, error);
    CHECK(server != nullptr);
    pthread_setattr_default_np(&impossible);
    device.ask(Kernel::bytes(fuse::Opcode::init, 0, Kernel::initBody(45), 1));
    error.clear();
    CHECK(!server->waitReady(10'000, error));
    CHECK(error.find("no thread can be started: ") == 0);
    pthread_setattr_default_np(&normal);
    pthread_attr_destroy(&impossible);
    pthread_attr_destroy(&normal);
  });

  run("a mount that was agreed with before is served at once", [] {
    auto core = newCore();
    Kernel(*core).init(44);
    FakeDevice device;
    std::string error;
    auto server = Server::start(*core, std::make_unique<FakeChannel>(device), 1, fuse::newestMinor, error);
    CHECK(server->waitReady(0, error));
    CHECK_IS(server->facts().negotiated.minor, 44U);
    device.ask(Kernel::bytes(fuse::Opcode::getattr, rootNode, {}, 5));
    CHECK_IS(FakeDevice::errorOf(device.reply(5)), 0);
  });

  run("an unmount ends the server without words", [] {
    Running it;
    CHECK(it.init());
    it.device.close();
    for (int i = 0; i < 1000 && it.server->facts().connected; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(!it.server->facts().connected);
    CHECK_IS(it.server->facts().ended, "");
    Running never;
    never.device.close();
    std::string error;
    CHECK(!never.server->waitReady(10'000, error));
    CHECK_IS(error, "the mount went away");
  });

  run("requests of wrong lengths get EIO or EINVAL; those without a header are counted", [] {
    Running it;
    CHECK(it.init());
    it.device.ask("short");
    it.device.ask(std::string(sizeof(fuse::InHeader) - 1, '\1'));
    std::string longer = Kernel::bytes(fuse::Opcode::getattr, rootNode, {}, 500) + "surplus";
    it.device.ask(longer);
    CHECK_IS(it.errorTo(500), EIO);
    std::string shorter = Kernel::bytes(fuse::Opcode::read, rootNode, std::string(40, '\0'), 501);
    it.device.ask(shorter.substr(0, 60));
    CHECK_IS(it.errorTo(501), EIO);
    for (const auto opcode : {fuse::Opcode::read, fuse::Opcode::open, fuse::Opcode::readdir, fuse::Opcode::poll})
      CHECK_IS(it.errorTo(it.ask(opcode, rootNode, "123")), EINVAL);
    for (const std::string& name : {std::string(), std::string("no end"), std::string(1, '\0')})
      CHECK_IS(it.errorTo(it.ask(fuse::Opcode::lookup, rootNode, name)), EINVAL);
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::lookup, rootNode, std::string(255, 'x') + '\0')), ENOENT);
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::lookup, rootNode, std::string(256, 'x') + '\0')), ENAMETOOLONG);
    CHECK_IS(it.server->facts().malformed, std::uint64_t{2});
  });

  run("every operation is answered, also those that nobody knows", [] {
    Running it;
    CHECK(it.init());
    const auto file = it.publish("value");
    for (std::uint32_t opcode = 0; opcode < 80; opcode++) {
      const auto op = static_cast<fuse::Opcode>(opcode);
      if (op == fuse::Opcode::forget || op == fuse::Opcode::batchForget || op == fuse::Opcode::notifyReply) continue;
      for (const auto node : {rootNode, file, std::uint64_t{0}, ~std::uint64_t{0}})
        CHECK(it.errorTo(it.ask(op, node, std::string(64, '\0'))) >= 0);
    }
    for (const auto op : {fuse::Opcode::write, fuse::Opcode::setattr, fuse::Opcode::mkdir, fuse::Opcode::unlink, fuse::Opcode::create})
      CHECK_IS(it.errorTo(it.ask(op, rootNode)), EROFS);
    CHECK_IS(it.errorTo(it.ask(static_cast<fuse::Opcode>(4096), rootNode)), ENOSYS);
  });

  run("a reply that the kernel does not take is followed by EIO, once", [] {
    std::atomic<int> sends{0};
    Running it;
    CHECK(it.init());
    const auto file = it.publish("value");
    for (const int error : {EINVAL, EIO, EFAULT, ENOMEM}) {
      {
        const std::scoped_lock guard(it.device.lock);
        it.device.onSend = [error](std::string_view message) { return message.size() > sizeof(fuse::OutHeader) ? error : 0; };
      }
      CHECK_IS(it.errorTo(it.ask(fuse::Opcode::read, file, readBody())), EIO);
    }
    // The reader has gone: nothing more to say.
    {
      const std::scoped_lock guard(it.device.lock);
      it.device.onSend = [&sends](std::string_view) { return sends++, ENOENT; };
    }
    it.ask(fuse::Opcode::read, file, readBody());
    for (int i = 0; i < 5000 && sends == 0; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    {
      const std::scoped_lock guard(it.device.lock);
      it.device.onSend = nullptr;
    }
    CHECK_IS(sends.load(), 1);
  });

  run("changes are told name by name; all at once where that takes too long and the kernel can; wipes of mapped files by zeros", [] {
    for (const std::uint32_t minor : {45U, 44U, 43U, 31U}) {
      Running it;
      CHECK(it.init(minor));
      it.publish("one", true);
      CHECK_IS(it.device.notices(fuse::Notice::incEpoch), 0);  // nothing was there before
      const auto second = it.publish("two", true);
      CHECK(it.device.waitNotices(fuse::Notice::remove, 1));
      CHECK_IS(it.device.notices(fuse::Notice::incEpoch), 0);
      {
        const std::scoped_lock guard(it.device.lock);
        it.device.onSend = [](std::string_view message) {
          // As where a reader holds the directory's lock.
          if (FakeDevice::errorOf(message) == static_cast<int>(fuse::Notice::remove)) std::this_thread::sleep_for(std::chrono::milliseconds(300));
          return 0;
        };
      }
      it.publish("three", true);
      CHECK_IS(it.device.notices(fuse::Notice::incEpoch), minor >= fuse::epochMinor ? 1 : 0);
      {
        const std::scoped_lock guard(it.device.lock);
        it.device.onSend = nullptr;
      }
      CHECK(it.device.notices(fuse::Notice::invalInode) >= 1);
      Builder build(*it.core);
      build.fill(rootNode, {});
      build.step.gone = {second};
      CHECK_IS(build.commit(), "");
      // When it returns, the pages are zero and gone.
      CHECK_IS(it.device.notices(fuse::Notice::store), 1);
    }
    Running refusing;
    CHECK(refusing.init(43));
    refusing.publish("one");
    {
      const std::scoped_lock guard(refusing.device.lock);
      refusing.device.onSend = [](std::string_view message) {
        return FakeDevice::errorOf(message) == static_cast<int>(fuse::Notice::remove) ? EBUSY : 0;
      };
    }
    refusing.publish("two");
    CHECK(refusing.device.waitNotices(fuse::Notice::invalEntry, 1));
    const std::scoped_lock guard(refusing.device.lock);
    refusing.device.onSend = nullptr;
  });

  run("names are told before what sends readers to them; a reader who holds the directory does not keep the rest", [] {
    std::atomic<bool> stuck{false};  // outlives the server's threads
    Running it;
    CHECK(it.init());
    const auto first = it.publish("one");
    it.ask(fuse::Opcode::poll, first, Kernel::flat(fuse::PollIn{1, 1, fuse::pollScheduleNotify, 0}));
    CHECK_IS(it.errorTo(it.nextUnique - 1), 0);
    const auto replace = [&](std::uint64_t file, std::string_view text) {
      Builder build(*it.core);
      const auto next = build.file(text);
      build.fill(rootNode, {{"key", next}});
      build.step.superseded = {file};
      build.step.readableUntilMs = forEver;
      CHECK_IS(build.commit(), "");
      return next;
    };
    std::vector<int> notices;
    it.onSend([&](std::string_view message) {
      while (stuck && isNotice(message, fuse::Notice::remove)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (FakeDevice::uniqueOf(message) == 0 && !stuck) notices.push_back(FakeDevice::errorOf(message));
      return 0;
    });
    const auto second = replace(first, "two");
    CHECK_IS(notices.size(), std::size_t{3});
    CHECK_IS(notices.front(), static_cast<int>(fuse::Notice::remove));
    CHECK_IS(notices.back(), static_cast<int>(fuse::Notice::poll));
    stuck = true;
    replace(second, "three");
    CHECK_IS(it.device.notices(fuse::Notice::incEpoch), 1);
    CHECK_IS(it.device.notices(fuse::Notice::remove), 1);
    stuck = false;
    CHECK(it.device.waitNotices(fuse::Notice::remove, 2));
    it.onSend(nullptr);
  });

  run("a kernel that does not let go of mapped pages: the wipe says so in time, and is told again later", [] {
    std::atomic<bool> stuck{true};  // outlives the server's threads
    Running it(2, 500);
    CHECK(it.init());
    Builder build(*it.core);
    const auto piece = build.value("mapped");
    build.fill(rootNode, {{"key", build.file(piece, 6, true)}});
    CHECK_IS(build.commit(), "");
    {
      const std::scoped_lock guard(it.device.lock);
      it.device.onSend = [&](std::string_view message) {
        while (stuck && FakeDevice::uniqueOf(message) == 0 && FakeDevice::errorOf(message) == static_cast<int>(fuse::Notice::store))
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return 0;
      };
    }
    CHECK(it.core->release(piece) == Released::late);
    CHECK_IS(it.server->facts().notifier.pendingScrubs, std::uint64_t{1});
    CHECK_IS(it.server->facts().notifier.lateScrubs, std::uint64_t{1});
    CHECK_IS(it.errorTo(it.ask(fuse::Opcode::getattr, rootNode)), 0);  // readers are served meanwhile
    stuck = false;
    CHECK(it.device.waitNotices(fuse::Notice::store, 1));
  });

#if defined(__x86_64__)
  run("no vector register keeps what was copied last", [] {
    alignas(64) unsigned char kept[3][64];
    const auto count = [](const unsigned char* bytes) { return std::count(bytes, bytes + 64, 0xa5); };
    std::memset(kept, 0xa5, sizeof kept);
    const bool avx = __builtin_cpu_supports("avx");
    const bool avx512 = __builtin_cpu_supports("avx512f");
    const auto fill = [&] {
      asm volatile("movups (%0), %%xmm0\n movups (%0), %%xmm15" ::"r"(kept[0]) : "xmm0", "xmm15");
      if (avx) asm volatile("vmovups (%0), %%ymm7" ::"r"(kept[0]) : "xmm7");
      if (avx512) asm volatile("vmovups (%0), %%zmm16\n vmovups (%0), %%zmm31" ::"r"(kept[0]));
    };
    const auto look = [&] {
      asm volatile("movups %%xmm0, (%0)\n movups %%xmm15, 16(%0)" ::"r"(kept[0]) : "memory");
      if (avx) asm volatile("vmovups %%ymm7, 32(%0)" ::"r"(kept[0]) : "memory");
      if (avx512) asm volatile("vmovups %%zmm16, (%0)\n vmovups %%zmm31, 64(%0)" ::"r"(kept[1]) : "memory");
    };
    fill();
    look();
    CHECK_IS(count(kept[0]) + count(kept[1]) + count(kept[2]), 3 * 64);
    fill();
    wipeVectorRegisters();
    look();
    CHECK_IS(count(kept[0]), avx ? 0 : 32);
    if (avx512) CHECK_IS(count(kept[1]) + count(kept[2]), 0);
  });
#endif

  run("a value whose mapped file went before is not called wiped while its pages are still there", [] {
    std::atomic<bool> stuck{true};  // outlives the server's threads
    Running it(2, 300);
    CHECK(it.init());
    Builder build(*it.core);
    const auto piece = build.value("mapped");
    const auto other = build.value("never mapped");
    const auto file = build.file(piece, 6, true);
    build.fill(rootNode, {{"key", file}, {"strict", build.file(piece, 6)}, {"other", build.file(other, 12)}});
    CHECK_IS(build.commit(), "");
    it.onSend([&](std::string_view message) {
      while (stuck && isNotice(message, fuse::Notice::store)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return 0;
    });
    build.step.gone = {file};
    CHECK_IS(build.commit(), "");
    CHECK(it.core->release(other) == Released::done);
    CHECK(it.core->release(piece) == Released::late);
    stuck = false;
    CHECK(it.device.waitNotices(fuse::Notice::store, 1));
    const auto again = build.value("a newer one at the same place");
    CHECK(it.core->release(again) == Released::done);
  });

  run("stopped while the kernel takes a name back, which waits for a reader: it is answered", [] {
    Running it;
    CHECK(it.init());
    it.publish("one");
    // A reader holds the directory until its LOOKUP is answered, which comes when the server is ending already.
    std::atomic<std::uint64_t> awaited{0};
    it.onSend([&](std::string_view message) {
      if (!isNotice(message, fuse::Notice::remove)) return 0;
      awaited = it.nextUnique++;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      it.device.ask(Kernel::bytes(fuse::Opcode::lookup, rootNode, std::string("key") + '\0', awaited));
      return it.device.reply(awaited).empty() ? EIO : 0;
    });
    it.publish("two");
    while (awaited == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    it.server.reset();
    CHECK(!it.device.reply(awaited).empty());
    CHECK_IS(it.device.notices(fuse::Notice::remove), 1);
  });

  run("stopped while mapped pages are still to be taken back: that is done first", [] {
    Running it(2, 100);
    CHECK(it.init());
    Builder build(*it.core);
    std::vector<std::uint64_t> files;
    for (int i = 0; i < 3; i++) files.push_back(build.file("mapped", true));
    build.fill(rootNode, {{"0", files[0]}, {"1", files[1]}, {"2", files[2]}});
    CHECK_IS(build.commit(), "");
    std::atomic<bool> stuck{true};
    it.onSend([&](std::string_view message) {
      while (stuck && isNotice(message, fuse::Notice::store)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return 0;
    });
    build.step.gone = files;
    CHECK_IS(build.commit(), "");  // late
    CHECK_IS(it.server->facts().notifier.pendingScrubs, std::uint64_t{3});
    std::thread freeing([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      stuck = false;
    });
    it.server.reset();
    freeing.join();
    CHECK_IS(it.device.notices(fuse::Notice::store), 3);
    CHECK_IS(it.device.notices(fuse::Notice::invalInode) >= 3, true);
  });

  run("stopped while requests come in", [] {
    for (int round = 0; round < 50; round++) {
      auto it = std::make_unique<Running>(3);
      CHECK(it->init());
      const auto file = it->publish("value");
      std::thread asking([&] {
        for (int i = 0; i < 200; i++) it->device.ask(Kernel::bytes(fuse::Opcode::read, file, readBody(), 1000 + static_cast<std::uint64_t>(i)));
      });
      it->server.reset();
      asking.join();
    }
  });
  return result();
}
