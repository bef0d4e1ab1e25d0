// Who may read, who read, and what is told of it.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "caller.h"
#include "check.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

struct Gated {
  std::unique_ptr<Core> core = newCore();
  Kernel kernel{*core};
  Builder build{*core};
  std::uint64_t task = 0;
  std::uint64_t key = 0;

  Gated() {
    kernel.init();
    task = build.directory();
    key = build.file("value");
    build.step.made.back().gated = task;
    build.fill(rootNode, {{"task", task}});
    build.fill(task, {{"key", key}});
    kernel.callers.cgroups = {{"/", 1}, {"/docker/a", 10}, {"/docker/a/inner", 11}, {"/docker/ab", 12}, {"/docker/b", 13}};
    kernel.callers.paths = {{1, "/"}, {10, "/docker/a"}, {11, "/docker/a/inner"}, {12, "/docker/ab"}, {13, "/docker/b"}};
  }
  void gate(std::vector<Gating::Reader> readers, std::string note = "", bool open = false) {
    build.step.gatings.push_back({task, open, std::move(readers), std::move(note)});
    CHECK_IS(build.commit(), "");
  }
  int opened(std::uint32_t thread) {
    kernel.thread = thread;
    return kernel.open(key).error;
  }
  int read(std::uint32_t thread) {
    kernel.thread = thread;
    return kernel.read(key).error;
  }
};

std::string countsOf(const Collected& all) {
  std::map<std::string, std::uint64_t> lines;
  for (const CollectedCount& count : all.counts)
    lines[std::to_string(count.uid) + "/" + std::to_string(count.cgroup) + "/" + std::to_string(static_cast<int>(count.outcome))] +=
        count.count;
  std::string text;
  for (const auto& [line, count] : lines) text += line + "=" + std::to_string(count) + " ";
  return text;
}

}  // namespace

int main() {
  run("an open gate lets everybody pass, a shut one nobody, also not who cannot be told", [] {
    Gated world;
    world.gate({}, "", true);
    for (const std::uint32_t thread : {0U, 1U, 10U}) CHECK_IS(world.opened(thread), 0);
    world.gate({}, "a note", true);
    for (const std::uint32_t thread : {0U, 1U, 10U}) CHECK_IS(world.opened(thread), 0);
    world.gate({});
    for (const std::uint32_t thread : {0U, 1U, 10U}) CHECK_IS(world.opened(thread), EACCES);
    for (const std::uint32_t thread : {0U, 1U, 10U}) CHECK_IS(world.read(thread), EACCES);
  });

  run("those of the cgroup and below pass, root of the host and others do not", [] {
    Gated world;
    world.gate({{10, "/docker/a"}});
    for (int round = 0; round < 2; round++) {  // the second from what was found out in the first
      CHECK_IS(world.opened(10), 0);
      CHECK_IS(world.opened(11), 0);
      CHECK_IS(world.read(11), 0);
      for (const std::uint32_t thread : {0U, 1U, 12U, 13U}) CHECK_IS(world.opened(thread), EACCES);
      for (const std::uint32_t thread : {0U, 1U, 12U, 13U}) CHECK_IS(world.read(thread), EACCES);
    }
    world.gate({{13, "/docker/b"}, {12, "/docker/ab"}});
    for (const std::uint32_t thread : {10U, 11U}) CHECK_IS(world.read(thread), EACCES);
    for (const std::uint32_t thread : {12U, 13U}) CHECK_IS(world.read(thread), 0);
  });

  run("a cgroup made anew at the path of one that passes gives nothing to those below it", [] {
    Gated world;
    world.gate({{10, "/docker/a"}});
    world.kernel.callers.cgroups["/docker/a"] = 20;
    CHECK_IS(world.opened(10), EACCES);
    CHECK_IS(world.opened(11), EACCES);
  });

  run("a container passes by its id before its cgroup is known, where only root can make such a cgroup", [] {
    const std::string id(64, 'a');
    Gated world;
    auto& callers = world.kernel.callers;
    const std::vector<std::string> own = {
        "/docker/" + id,
        "/docker/" + id + "/inner",
        "/system.slice/docker-" + id + ".scope",
        "/libpod_parent/libpod-" + id,
        "/machine.slice/libpod-" + id + ".scope/container",
    };
    const std::vector<std::string> others = {
        "/docker/" + id + "b",
        "/docker/b" + id,
        "/system.slice/" + id + ".service",
        "/system.slice/x" + id + ".scope",
        "/user/docker/" + id,
        "/libpod_parent/libpod-b" + id,
        "/libpod_parent/conmon",
        "/machine.slice/libpod-conmon-" + id + ".scope",
        "/machine.slice/mylibpod-" + id + ".scope",
        "/machine.slice/libpod-" + id + ".scope.scope",
    };
    std::vector<std::string> paths = own;
    paths.insert(paths.end(), others.begin(), others.end());
    for (std::uint32_t i = 0; i < paths.size(); i++) callers.paths[100 + i] = paths[i], callers.cgroups[paths[i]] = 100 + i;
    world.gate({{0, id}});
    for (std::uint32_t i = 0; i < paths.size(); i++) CHECK_IS(world.opened(100 + i), i < own.size() ? 0 : EACCES);
    CHECK_IS(world.opened(1), EACCES);
  });

  run("who was let in once is found out once", [] {
    Gated world;
    world.gate({{10, "/docker/a"}});
    CHECK_IS(world.opened(13), EACCES);
    const std::size_t lookups = world.kernel.callers.lookups;
    for (int i = 0; i < 100; i++) CHECK_IS(world.opened(13), EACCES);
    CHECK_IS(world.kernel.callers.lookups, lookups);
  });

  run("a gate, its readers and its note are a successor’s, and go with their directory", [] {
    Gated world;
    world.gate({{10, "/docker/a"}}, "what is attached");
    const auto memory = world.core->mapping().bytes();
    std::string error;
    {
      const auto image = Image::open(memory, error);
      CHECK(image.has_value());
      CHECK_IS(std::string(image->gateNote(*image->find(world.task))), "what is attached");
    }
    const std::size_t before = world.core->use().usedBytes;
    for (int i = 0; i < 50; i++) world.gate({{10, "/docker/a"}, {13, "/docker/b"}}, "another note");
    world.gate({{10, "/docker/a"}}, "what is attached");
    CHECK_IS(world.core->use().usedBytes, before);
    world.build.step.removed = {{rootNode, "task"}};
    world.build.step.gone = {world.task, world.key};
    CHECK_IS(world.build.commit(), "");
    CHECK(world.core->use().usedBytes < before);
    CHECK_IS(world.read(10), ESTALE);
  });

  run("a gate that does not fit is refused, and the one before it stays; to shut it needs no memory", [] {
    Gated world;
    world.gate({{10, "/docker/a"}});
    const std::size_t room = world.core->use().freeBytes;
    world.build.step.gatings.push_back({world.task, false, {{13, "/docker/b"}}, std::string(room, 'x')});
    CHECK(world.build.commit() != "");
    CHECK_IS(world.opened(10), 0);
    CHECK_IS(world.core->use().freeBytes, room);
    while (world.core->alloc(64)) continue;
    world.gate({});
    CHECK_IS(world.opened(10), EACCES);
  });

  run("each open and each refusal is recorded and counted, reads are not", [] {
    Gated world;
    world.gate({{10, "/docker/a"}});
    world.opened(10);
    world.read(10);
    world.opened(13);
    world.read(13);
    world.kernel.thread = 10;
    CHECK_IS(world.kernel.read(world.key, 0, 4096, true).error, EINVAL);
    world.core->serveUntil(0);
    CHECK_IS(world.opened(10), ESTALE);
    const Collected all = world.core->collectAccesses();
    std::string outcomes;
    for (const CollectedAccess& access : all.accesses) {
      outcomes += std::to_string(static_cast<int>(access.outcome)) + "/" + std::to_string(access.caller.cgroup) + " ";
      CHECK_IS(access.node, world.key);
      CHECK(access.atMs > 1'700'000'000'000);
      CHECK_IS(access.caller.process, access.caller.thread + 1000);
      CHECK_IS(std::string(access.caller.name), "reader");
    }
    CHECK_IS(outcomes, "0/10 1/13 1/13 4/10 2/10 ");
    CHECK_IS(countsOf(all), "0/10/0=1 0/10/2=1 0/10/4=1 0/13/1=2 ");
    CHECK_IS(all.cgroups.at(13), "/docker/b");
    CHECK(world.core->collectAccesses().accesses.empty());
  });

  run("records that find no room are counted as dropped; no count is lost", [] {
    Gated world;
    world.gate({}, "", true);
    const std::size_t total = accessCapacity + 500;
    // More kinds of readers than the table of counts holds.
    for (std::size_t i = 0; i < total; i++) {
      const auto thread = static_cast<std::uint32_t>(100 + i % 2000);
      world.kernel.callers.paths[thread] = "/many/" + std::to_string(thread);
      world.kernel.callers.cgroups["/many/" + std::to_string(thread)] = 1000 + thread;
      CHECK_IS(world.opened(thread), 0);
    }
    const Collected all = world.core->collectAccesses();
    CHECK_IS(all.accesses.size(), accessCapacity);
    CHECK_IS(all.dropped, total - accessCapacity);
    std::uint64_t counted = 0, unattributed = 0;
    for (const CollectedCount& count : all.counts) {
      counted += count.count;
      if (count.uid == notAttributed) unattributed += count.count;
    }
    CHECK_IS(counted, total);
    CHECK(unattributed > 0 && unattributed < total - 500);
    CHECK_IS(world.opened(10), 0);
    CHECK_IS(world.core->collectAccesses().accesses.size(), std::size_t{1});
  });

  run("what a killed process has not told its successor tells, without what it was writing", [] {
    Gated world;
    world.gate({}, "", true);
    world.opened(10);
    world.opened(13);
    const auto memory = world.core->mapping().bytes();
    std::string error;
    const auto image = Image::open(memory, error);
    CHECK(image.has_value());
    image->accesses()[1].stamp = 0;  // killed before it was complete
    AccessBook book(*image);
    const Collected all = book.collect();
    CHECK_IS(all.accesses.size(), std::size_t{1});
    CHECK_IS(countsOf(all), "0/10/0=1 0/13/0=1 ");
  });

  run("the kernel tells who a thread is, in whatever thread of a process, and forgets none that ended", [] {
    KernelCallers callers;
    const auto self = static_cast<std::uint32_t>(gettid());
    const Caller me = callers.identify(self);
    CHECK_IS(me.process, static_cast<std::uint32_t>(getpid()));
    CHECK(std::string(me.name) != "");
    CHECK(me.startTicks > 0);
    CHECK(me.cgroup > 0);
    CHECK_IS(callers.cgroupAt(callers.cgroupPath(self)), me.cgroup);
    CHECK_IS(callers.cgroupOf(self), me.cgroup);

    std::atomic<std::uint32_t> other = 0;
    std::atomic<bool> done = false;
    std::thread thread([&] {
      other = static_cast<std::uint32_t>(gettid());
      while (!done) std::this_thread::yield();
    });
    while (other == 0) std::this_thread::yield();
    CHECK_IS(callers.identify(other).process, me.process);
    CHECK_IS(callers.identify(other).startTicks, me.startTicks);
    done = true;
    thread.join();
    for (int i = 0; i < 1000 && callers.cgroupOf(other) != 0; i++) usleep(1000);  // the kernel lets go of it a moment later
    CHECK_IS(callers.cgroupOf(other), std::uint64_t{0});
    CHECK_IS(callers.identify(0).process, 0U);
    CHECK_IS(callers.cgroupOf(0), std::uint64_t{0});
  });

  run("more threads than are kept, and no descriptor stays behind", [] {
    const auto descriptors = [] {
      int count = 0;
      for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
      return count;
    };
    const int before = descriptors();
    {
      KernelCallers callers;
      std::vector<pid_t> children;
      for (int i = 0; i < 100; i++) {
        const pid_t child = fork();
        if (child == 0) {
          pause();
          _exit(0);
        }
        children.push_back(child);
      }
      for (int round = 0; round < 3; round++) {
        for (const pid_t child : children)
          CHECK_IS(callers.identify(static_cast<std::uint32_t>(child)).process, static_cast<std::uint32_t>(child));
      }
      CHECK(descriptors() <= before + 1 + 2 * 64);
      for (const pid_t child : children) kill(child, SIGKILL), waitpid(child, nullptr, 0);
      for (const pid_t child : children) CHECK_IS(callers.cgroupOf(static_cast<std::uint32_t>(child)), std::uint64_t{0});
    }
    CHECK_IS(descriptors(), before);
  });

  return result();
}
