// Steps, ids, listings, waiters: what a mount shows, asked for as the kernel asks.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "check.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

int main() {
  run("a step is seen; what it supersedes can be read on but not opened; what is gone cannot be read", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto web = build.directory();
    const auto one = build.file("one");
    const auto other = build.file("other");
    build.fill(rootNode, {{"web", web}});
    build.fill(web, {{"key", one}, {"other", other}});
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("web/key"), "one");
    for (const int flags : {O_RDONLY, O_APPEND, O_DIRECT, O_NONBLOCK, O_NOATIME, O_CREAT})
      CHECK_IS(kernel.open(one, static_cast<std::uint32_t>(flags)).error, 0);
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_TRUNC, O_ACCMODE})
      CHECK_IS(kernel.open(one, static_cast<std::uint32_t>(flags)).error, EROFS);

    const auto two = build.file("two");
    build.fill(web, {{"key", two}});
    build.step.superseded = {one};
    build.step.readableUntilMs = forEver;
    build.step.gone = {other};
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("web/key"), "two");
    CHECK_IS(kernel.content("web/other"), "ENOENT");
    CHECK_IS(kernel.read(one).body, "one");
    CHECK_IS(kernel.open(one).error, ESTALE);
    CHECK_IS(kernel.read(other).error, ESTALE);

    build.fill(web, {});
    build.step.superseded = {two};
    build.step.readableUntilMs = 1;  // long ago
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.read(two).error, ESTALE);
  });

  run("a wiped value is ESTALE while its name is still shown, and its bytes are gone", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto piece = build.value("marker-marker");
    const auto file = build.file(piece, 13);
    build.fill(rootNode, {{"key", file}});
    CHECK_IS(build.commit(), "");
    CHECK(core->release(piece) == Released::done);
    CHECK(core->release(piece) == Released::notOut);
    CHECK_IS(kernel.read(file).error, ESTALE);
    CHECK_IS(kernel.open(file).error, ESTALE);
    CHECK(kernel.walk("key") == file);
    const auto memory = core->mapping().bytes();
    const std::string_view all(reinterpret_cast<const char*>(memory.data()), memory.size());
    CHECK(all.find("marker-marker") == all.npos);
  });

  run("a late release of a piece whose place has a newer one takes nothing from that", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto first = build.value("first");
    CHECK(core->release(first) == Released::done);
    const auto second = build.value("second");
    CHECK_IS(first.offset, second.offset);
    build.fill(rootNode, {{"key", build.file(second, 6)}});
    CHECK_IS(build.commit(), "");
    CHECK(core->release(first) == Released::notOut);
    CHECK_IS(kernel.content("key"), "second");
  });

  run("the lease, and the end: nothing is served", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto file = build.file("x");
    build.fill(rootNode, {{"key", file}});
    CHECK_IS(build.commit(), "");
    core->serveUntil(boottimeMs());
    CHECK_IS(kernel.read(file).error, ESTALE);
    CHECK_IS(kernel.open(file).error, ESTALE);
    core->serveUntil(forEver);
    CHECK_IS(kernel.read(file).error, 0);
    core->wipe();
    CHECK_IS(kernel.read(file).error, ESTALE);
  });

  run("a step that cannot be changes nothing, and its ids come back", [] {
    auto core = newCore(64 * 1024, 16);
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto kept = build.file("kept");
    build.fill(rootNode, {{"kept", kept}});
    CHECK_IS(build.commit(), "");
    const auto before = core->use();
    const auto refused = [&](const char* words) {
      const std::string said = build.commit();
      CHECK(said.find(words) != said.npos);
      CHECK_IS(kernel.content("kept"), "kept");
      CHECK_IS(core->nodesUsed(), std::size_t{2});  // with the root
    };
    for (int i = 0; i < 100; i++) {  // more often than there are slots
      build.fill(build.directory(), {{"a/b", kept}});
      refused("no name or no node");
      build.fill(rootNode, {{"new", std::uint64_t{99} << slotBits | 5}});
      refused("no name or no node");
      build.fill(kept, {});
      refused("is no directory");
      build.fill(rootNode, {{std::string(256, 'x'), kept}});
      refused("no name or no node");
    }
    // No room for the names: they are longer than the heap.
    std::vector<std::pair<std::string, std::uint64_t>> many;
    for (int i = 0; i < 1000; i++) many.emplace_back(std::string(200, 'n') + std::to_string(i), kept);
    build.link("target");
    build.fill(rootNode, many);
    refused("no room");
    CHECK_IS(core->use().usedBytes, before.usedBytes);
  });

  run("taking away needs no memory", [] {
    auto core = newCore(64 * 1024, 64);
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto web = build.directory();
    const auto file = build.file("x");
    build.fill(rootNode, {{"web", web}, {"other", build.directory()}});
    build.fill(web, {{"key", file}});
    CHECK_IS(build.commit(), "");
    while (core->alloc(64)) {
    }
    CHECK_IS(core->use().freeBytes, std::size_t{0});
    build.step.removed = {{rootNode, "web"}, {rootNode, "never there"}};
    build.step.gone = {file, web, 12345};
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("web"), "ENOENT");
    CHECK_IS(kernel.read(file).error, ESTALE);
    CHECK(kernel.walk("other") != 0);
  });

  run("ids are never used again, and are spent at last without harm", [] {
    auto core = newCore(64 * 1024, 8);
    std::uint64_t last = 0;
    for (int i = 0; i < 10'000; i++) {
      const auto id = core->reserve();
      if (!CHECK(id.has_value())) break;
      CHECK(*id > last);
      last = *id;
      core->giveBack(*id);
    }
    core->nodes().image().header().nextSerial = maxSerial;
    CHECK(core->reserve().has_value());
    CHECK(!core->reserve().has_value());
  });

  run("the table of nodes is bounded", [] {
    auto core = newCore(64 * 1024, 8);
    int reserved = 0;
    while (core->reserve()) reserved++;
    CHECK_IS(reserved, 6);
  });

  run("a listing goes on right while entries change", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    std::vector<std::pair<std::string, std::uint64_t>> entries;
    for (int i = 0; i < 100; i++) entries.emplace_back("n" + std::to_string(i), build.file("x"));
    build.fill(rootNode, entries);
    CHECK_IS(build.commit(), "");
    const auto first = kernel.list(rootNode, 0, 512);
    CHECK(first.size() > 4 && first.size() < 50);
    CHECK_IS(first[0].first, ".");
    CHECK_IS(first[1].first, "..");
    // Those that were listed go, some later ones are replaced, and one comes in front.
    std::vector<std::pair<std::string, std::uint64_t>> next{{"a-new", build.file("x")}};
    for (std::size_t i = first.size(); i < 100; i++) next.emplace_back(entries[i].first, i % 2 == 0 ? build.file("y") : entries[i].second);
    build.fill(rootNode, next);
    CHECK_IS(build.commit(), "");
    std::map<std::string, int> seen;
    for (auto position = first.back().second;;) {
      const auto more = kernel.list(rootNode, position, 512);
      if (more.empty()) break;
      for (const auto& [name, at] : more) {
        seen[name]++;
        position = at;
      }
    }
    CHECK_IS(seen.size(), next.size());
    for (const auto& [name, id] : next) CHECK_IS(seen[name], 1);
    CHECK(kernel.list(rootNode, ~std::uint64_t{0}).empty());
  });

  run("pollers are woken by news, bounded, and forgotten when their descriptor closes", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    std::vector<std::uint64_t> woken;
    core->onTold([&](const Told& told) {
      woken.insert(woken.end(), told.waiters.begin(), told.waiters.end());
      return true;
    });
    Builder build(*core);
    const auto one = build.file("one");
    build.fill(rootNode, {{"key", one}});
    CHECK_IS(build.commit(), "");
    for (std::uint64_t i = 1; i <= pollCapacity; i++) CHECK_IS(kernel.poll(one, i, i).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM});
    CHECK_IS(kernel.poll(one, 1, 1).error, 0);
    CHECK_IS(kernel.poll(one, 9999, 9999).error, ENOSPC);
    kernel.ask(fuse::Opcode::release, one, Kernel::flat(fuse::ReleaseIn{7, 0, 0, 0}));
    CHECK_IS(kernel.poll(one, 9999, 9999).error, 0);
    const auto two = build.file("two");
    build.fill(rootNode, {{"key", two}});
    build.step.superseded = {one};
    build.step.readableUntilMs = forEver;
    CHECK_IS(build.commit(), "");
    CHECK_IS(woken.size(), pollCapacity);
    CHECK_IS(kernel.poll(one, 1, 1).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM | POLLPRI});
    build.step.gone = {one};
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.poll(one, 1, 1).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM | POLLPRI | POLLERR});
    core->onTold(nullptr);
  });

  run("who begins to wait after a newer version is there is told of the end", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    std::vector<std::uint64_t> woken;
    core->onTold([&](const Told& told) {
      woken.insert(woken.end(), told.waiters.begin(), told.waiters.end());
      return true;
    });
    Builder build(*core);
    const auto piece = build.value("one");
    const auto one = build.file(piece, 3);
    const auto past = build.file("past");
    build.fill(rootNode, {{"key", one}, {"past", past}});
    CHECK_IS(build.commit(), "");
    build.fill(rootNode, {{"key", build.file("two")}});
    build.step.superseded = {one};
    build.step.readableUntilMs = forEver;
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.poll(one, 1, 1).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM | POLLPRI});
    CHECK_IS(woken.size(), std::size_t{0});
    CHECK(core->release(piece) == Released::done);
    CHECK(!woken.empty());
    CHECK_IS(kernel.poll(one, 1, 1).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM | POLLPRI | POLLERR});
    build.step.superseded = {past};
    build.step.readableUntilMs = 1;  // long ago: over, whether or not somebody has cleared it away
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.poll(past, 2, 2).as<fuse::PollOut>().revents, std::uint32_t{POLLIN | POLLRDNORM | POLLPRI | POLLERR});
    core->onTold(nullptr);
  });

  run("strict: what fills the page cache is refused; a mappable file allows it", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto strict = build.file("strict");
    const auto mappable = build.file("mappable", true);
    build.fill(rootNode, {{"strict", strict}, {"mappable", mappable}});
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.read(strict, 0, 4096, true).error, EINVAL);
    CHECK_IS(kernel.read(mappable, 0, 4096, true).body, "mappable");
    std::vector<Told::Mapped> mapped;
    core->onTold([&](const Told& told) {
      mapped.insert(mapped.end(), told.mapped.begin(), told.mapped.end());
      return true;
    });
    build.step.gone = {strict, mappable};
    CHECK_IS(build.commit(), "");
    CHECK_IS(mapped.size(), std::size_t{1});
    CHECK_IS(mapped[0].node, mappable);
    core->onTold(nullptr);
  });

  run("offsets and sizes at their ends", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const std::string large(300'000, 'L');
    const auto file = build.file(large);
    const auto empty = build.file("");
    build.fill(rootNode, {{"large", file}, {"empty", empty}});
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.read(file, 0, 0xffffffff).body.size(), maxReadBytes);
    CHECK_IS(kernel.read(file, large.size() - 1, 4096).body, "L");
    for (const std::uint64_t offset : {std::uint64_t{large.size()}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
      CHECK_IS(kernel.read(file, offset).error, 0);
      CHECK_IS(kernel.read(file, offset).body, "");
    }
    CHECK_IS(kernel.read(file, 5, 0).body, "");
    CHECK_IS(kernel.read(empty).body, "");
  });

  run("what is nobody's, or is there twice, is refused", [] {
    auto core = newCore(64 * 1024, 16);
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto kept = build.file("kept");
    build.fill(rootNode, {{"kept", kept}});
    CHECK_IS(build.commit(), "");
    const auto gone = build.file("gone");
    build.fill(rootNode, {{"kept", kept}, {"gone", gone}});
    CHECK_IS(build.commit(), "");
    build.step.removed = {{rootNode, "gone"}};
    build.step.gone = {gone};
    CHECK_IS(build.commit(), "");

    const auto refused = [&](const char* words, const std::function<void()>& prepare) {
      prepare();
      const std::string said = build.commit();
      if (!CHECK(said.find(words) != said.npos)) std::fprintf(stderr, "  wanted %s, got %s\n", words, said.c_str());
      CHECK_IS(kernel.content("kept"), "kept");
      CHECK_IS(core->nodesUsed(), std::size_t{2});
    };
    const auto withId = [&](std::uint64_t id) {
      build.file("x");
      core->giveBack(build.step.made.back().id);
      build.step.made.back().id = id;
    };
    refused("no id of its own", [&] { withId(gone); });  // used before
    refused("no id of its own", [&] { withId(kept); });  // in use
    refused("no id of its own", [&] { withId(rootNode); });
    refused("no id of its own", [&] { withId(std::uint64_t{9} << slotBits | 9); });  // never reserved
    refused("no id of its own", [&] { build.file("x"), withId(build.step.made.back().id); });
    refused("no content", [&] { build.file(build.value("x"), ~std::size_t{0}); });
    refused("no content", [&] { build.file(build.value("x"), ~std::size_t{0} - 31); });  // with the skip: 0
    refused("no content", [&] { build.file(build.value(std::string(8000, 'x')), 1), build.step.made.back().skip = 4097; });
    refused("no content", [&] { build.file("x"), build.step.made.back().mode = 0100644; });
    refused("no content", [&] { build.file("x"), build.step.made.back().piece.serial = 99999; });
    refused("no content", [&] { build.link(std::string(4096, 'x')); });
    refused("no content", [&] { build.link(""); });
    refused("another one's name", [&] { build.fill(rootNode, {{"twice", kept}, {"kept", kept}, {"twice", kept}}); });
    refused("filled twice", [&] { build.fill(rootNode, {}), build.fill(rootNode, {{"kept", kept}}); });

    // An id that is given back twice is not given to two.
    const auto one = *core->reserve();
    core->giveBack(one);
    core->giveBack(one);
    core->giveBack(kept);
    core->giveBack(~std::uint64_t{0});
    std::map<std::uint64_t, int> slots;
    while (const auto id = core->reserve()) slots[*id & slotMask]++;
    CHECK_IS(slots.size(), std::size_t{16 - 3});
    for (const auto& [slot, times] : slots) CHECK_IS(times, 1);
  });

  run("removals count: a directory's links and time follow, also where it is filled in the same step", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto a = build.directory();
    const auto b = build.directory();
    const auto file = build.file("x");
    build.fill(rootNode, {{"a", a}, {"b", b}, {"file", file}});
    build.step.changedMs = 1000;
    CHECK_IS(build.commit(), "");
    const auto root = [&] { return kernel.ask(fuse::Opcode::getattr, rootNode).as<fuse::AttrOut>().attr; };
    CHECK_IS(root().nlink, 4U);
    CHECK_IS(root().mtime, std::uint64_t{1});
    build.step.removed = {{rootNode, "a"}, {rootNode, "a"}, {rootNode, "file"}};
    build.step.changedMs = 2000;
    CHECK_IS(build.commit(), "");
    CHECK_IS(root().nlink, 3U);
    CHECK_IS(root().mtime, std::uint64_t{2});
    build.fill(rootNode, {{"b", b}, {"file", file}});
    build.step.removed = {{rootNode, "file"}, {b, "nothing"}, {file, "no directory"}, {99, "no node"}};
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("file"), "ENOENT");
    CHECK(kernel.walk("b") == b);
    CHECK_IS(root().nlink, 3U);
  });

  run("more goes at once than one journal holds", [] {
    auto core = newCore(4 << 20, 20'000);
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto piece = build.value("one value of many files");
    std::vector<std::pair<std::string, std::uint64_t>> entries;
    std::vector<std::uint64_t> files;
    for (std::size_t i = 0; i < journalCapacity + 100; i++) {
      files.push_back(build.file(piece, 23));
      entries.emplace_back(std::to_string(i), files.back());
    }
    const auto kept = build.file("kept");
    entries.emplace_back("kept", kept);
    build.fill(rootNode, entries);
    CHECK_IS(build.commit(), "");
    CHECK_IS(core->nodesUsed(), journalCapacity + 102);
    build.fill(rootNode, {{"kept", kept}});
    build.step.gone = std::vector(files.begin(), files.begin() + journalCapacity + 50);
    CHECK_IS(build.commit(), "");
    CHECK_IS(core->nodesUsed(), std::size_t{52});
    build.step.superseded = std::vector(files.begin() + journalCapacity + 50, files.end());
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("kept"), "kept");
    build.step.removed = std::vector(journalCapacity, std::pair<std::uint64_t, std::string>(rootNode, "kept"));
    CHECK(build.commit().find("at most 16384") != std::string::npos);
    CHECK_IS(kernel.content("kept"), "kept");
  });

  run("a wipe of more nodes than one journal holds", [] {
    auto core = newCore(4 << 20, 20'000);
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto piece = build.value("one value of many files");
    std::vector<std::uint64_t> files;
    for (std::size_t i = 0; i < journalCapacity + 100; i++) files.push_back(build.file(piece, 23));
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.read(files.back()).body, "one value of many files");
    CHECK(core->release(piece) == Released::done);
    for (const auto file : {files.front(), files.back()}) CHECK_IS(kernel.read(file).error, ESTALE);
  });

  run("what has expired is told also by a step that is refused", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    std::vector<std::uint64_t> mapped;
    core->onTold([&](const Told& told) {
      for (const auto& one : told.mapped) mapped.push_back(one.node);
      return true;
    });
    Builder build(*core);
    const auto file = build.file("mapped", true);
    build.fill(rootNode, {{"key", file}});
    CHECK_IS(build.commit(), "");
    build.fill(rootNode, {});
    build.step.superseded = {file};
    build.step.readableUntilMs = 1;  // long ago
    CHECK_IS(build.commit(), "");
    CHECK(mapped.empty());
    build.fill(file, {});
    CHECK(build.commit() != "");
    CHECK_IS(mapped.size(), std::size_t{1});
    core->onTold(nullptr);
  });

  run("a value that was wiped before a newer one replaces it leaves no node behind", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto piece = build.value("old");
    const auto old = build.file(piece, 3);
    build.fill(rootNode, {{"key", old}});
    CHECK_IS(build.commit(), "");
    CHECK(core->release(piece) == Released::done);
    build.fill(rootNode, {{"key", build.file("new")}});
    build.step.superseded = {old, old};
    build.step.readableUntilMs = forEver;
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("key"), "new");
    CHECK_IS(core->nodesUsed(), std::size_t{2});
    build.step.superseded = {old};
    build.step.gone = {old, rootNode};
    CHECK_IS(build.commit(), "");
    CHECK_IS(kernel.content("key"), "new");
  });

  run("a poller without a handle is refused, and takes nobody's place", [] {
    auto core = newCore();
    Kernel kernel(*core);
    kernel.init();
    Builder build(*core);
    const auto file = build.file("x");
    build.fill(rootNode, {{"key", file}});
    CHECK_IS(build.commit(), "");
    for (std::uint64_t i = 0; i < 10; i++) CHECK_IS(kernel.poll(file, i, 0).error, EINVAL);
    for (std::uint64_t i = 1; i <= pollCapacity; i++) CHECK_IS(kernel.poll(file, i, i).error, 0);
  });

  run("an arena that cannot hold its nodes is refused with words", [] {
    std::string error;
    CHECK(!Core::create({64 * 1024, true, 1, 0, 0}, error));
    CHECK(error.find("1 nodes are too few") == 0);
    CHECK(!Core::create({64 * 1024, true, maxNodes + 1, 0, 0}, error));
    CHECK(Core::create({64 * 1024, true, 0, 0, 0}, error) != nullptr);
  });
  return result();
}
