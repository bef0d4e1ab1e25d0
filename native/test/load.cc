// Everything at once, for the thread sanitizer: workers that answer, readers, and somebody who publishes, wipes, withdraws, ends
// and renews the lease, and looks at the facts. Runs for as many seconds as its argument says.
#include <chrono>
#include <thread>

#include "check.h"
#include "fake_channel.h"
#include "server.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

int main(int argc, char** argv) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 5);
  auto core = newCore(1 << 20, 1024);
  FakeDevice device;
  std::string error;
  auto server = Server::start(*core, std::make_unique<FakeChannel>(device), 4, fuse::newestMinor, error);
  device.ask(Kernel::bytes(fuse::Opcode::init, 0, Kernel::initBody(45), 1));
  CHECK(server->waitReady(10'000, error));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> shown{rootNode};
  std::atomic<std::uint64_t> unique{100};

  std::vector<std::thread> threads;
  for (int i = 0; i < 3; i++) {
    threads.emplace_back([&] {
      fuse::ReadIn in{};
      in.size = 4096;
      in.readFlags = fuse::readLockOwner;
      while (!stop) {
        {
          std::unique_lock guard(device.lock);
          if (device.requests.size() > 200) {
            device.sent.clear();
            guard.unlock();
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            continue;
          }
        }
        const std::uint64_t node = shown;
        device.ask(Kernel::bytes(fuse::Opcode::read, node, Kernel::flat(in), unique++));
        device.ask(Kernel::bytes(fuse::Opcode::open, node, Kernel::flat(fuse::OpenIn{}), unique++));
        device.ask(Kernel::bytes(fuse::Opcode::readdir, rootNode, Kernel::flat(in), unique++));
        device.ask(Kernel::bytes(fuse::Opcode::lookup, rootNode, std::string("key") + '\0', unique++));
        fuse::PollIn poll{};
        poll.fh = unique % 50;
        poll.kh = unique % 500 + 1;
        poll.flags = fuse::pollScheduleNotify;
        device.ask(Kernel::bytes(fuse::Opcode::poll, node, Kernel::flat(poll), unique++));
        device.ask(Kernel::bytes(fuse::Opcode::release, node, Kernel::flat(fuse::ReleaseIn{unique % 50, 0, 0, 0}), unique++));
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      (void)server->facts();
      (void)core->use();
      core->serveUntil(forEver);
    }
  });
  Builder build(*core);
  std::uint64_t rounds = 0;
  for (std::uint64_t last = 0; std::chrono::steady_clock::now() < end; rounds++) {
    const auto piece = build.value("a value that is published, read and wiped");
    const auto file = build.file(piece, 40, rounds % 3 == 0);
    build.fill(rootNode, {{"key", file}});
    if (last != 0) build.step.superseded = {last};
    build.step.readableUntilMs = forEver;
    CHECK_IS(build.commit(), "");
    shown = file;
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    if (rounds % 5 == 0) core->serveUntil(0);
    CHECK(core->release(piece) == Released::done);
    last = file;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const auto requests = server->facts().requests;
  server.reset();
  std::printf("# %llu rounds, %llu requests\n", static_cast<unsigned long long>(rounds), static_cast<unsigned long long>(requests));
  CHECK(requests > 100);
  std::printf("%s everything at once\n", failures == 0 ? "ok" : "not ok");
  return result();
}
