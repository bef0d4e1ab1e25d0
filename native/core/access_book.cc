#include "access_book.h"

#include <cstring>

namespace inro {
namespace {

std::uint64_t mixed(std::uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  return value;
}

}  // namespace

void AccessBook::record(const Access& access, std::uint64_t nowMs) {
  const std::scoped_lock guard(lock_);
  count(access, nowMs);
  append(access, nowMs);
}

void AccessBook::count(const Access& access, std::uint64_t nowMs) {
  constexpr std::size_t maxProbes = 32;
  const auto table = image_.accessCounts();
  const std::uint64_t key =
      mixed(access.node ^ mixed(access.caller.cgroup ^ mixed(access.uid * std::uint64_t{8} + static_cast<std::uint64_t>(access.outcome))));
  for (std::size_t i = 0; i < maxProbes; i++) {
    AccessCount& each = table[(key + i) % table.size()];
    if (each.node == 0) {
      each.cgroup = access.caller.cgroup;
      each.uid = access.uid;
      each.outcome = static_cast<std::uint32_t>(access.outcome);
      each.count.store(1);
      each.lastMs.store(nowMs);
      each.node.store(access.node, std::memory_order_release);
      return;
    }
    if (each.node == access.node && each.cgroup == access.caller.cgroup && each.uid == access.uid &&
        each.outcome == static_cast<std::uint32_t>(access.outcome)) {
      each.count.fetch_add(1);
      each.lastMs.store(nowMs);
      return;
    }
  }
  if (NodeRecord* const node = image_.find(access.node)) node->unattributed.fetch_add(1);
  hasUnattributed_ = true;
}

void AccessBook::append(const Access& access, std::uint64_t nowMs) {
  ImageHeader& header = image_.header();
  const auto ring = image_.accesses();
  const std::uint64_t place = header.accessHead;
  if (place - header.accessTail >= ring.size()) {
    header.accessesDropped.fetch_add(1);
    return;
  }
  AccessRecord& record = ring[place % ring.size()];
  record.atMs = nowMs;
  record.node = access.node;
  record.cgroup = access.caller.cgroup;
  record.startTicks = access.caller.startTicks;
  record.uid = access.uid;
  record.gid = access.gid;
  record.thread = access.caller.thread;
  record.process = access.caller.process;
  record.outcome = static_cast<std::uint32_t>(access.outcome);
  std::memcpy(record.name, access.caller.name, sizeof record.name);
  record.stamp.store(place + 1, std::memory_order_release);
  header.accessHead.store(place + 1, std::memory_order_release);
}

bool AccessBook::knowsCgroup(std::uint64_t cgroup) {
  const std::scoped_lock guard(lock_);
  return cgroups_.contains(cgroup);
}

void AccessBook::nameCgroup(std::uint64_t cgroup, std::string path) {
  const std::scoped_lock guard(lock_);
  if (cgroups_.size() >= maxCgroups) cgroups_.clear();  // they are learned again when they are met again
  cgroups_.emplace(cgroup, std::move(path));
}

std::string AccessBook::cgroupPath(std::uint64_t cgroup) {
  const std::scoped_lock guard(lock_);
  const auto known = cgroups_.find(cgroup);
  return known == cgroups_.end() ? std::string() : known->second;
}

bool AccessBook::hasNews() const {
  const ImageHeader& header = image_.header();
  return header.accessHead != header.accessTail || header.accessesDropped != 0;
}

Collected AccessBook::collect() {
  const std::scoped_lock guard(lock_);
  Collected all;
  ImageHeader& header = image_.header();
  const auto ring = image_.accesses();
  for (std::uint64_t place = header.accessTail; place < header.accessHead; place++) {
    const AccessRecord& record = ring[place % ring.size()];
    if (record.stamp != place + 1) continue;  // its writer was killed
    CollectedAccess access{};
    access.atMs = record.atMs;
    access.node = record.node;
    access.outcome = static_cast<AccessOutcome>(record.outcome);
    access.uid = record.uid;
    access.gid = record.gid;
    access.caller.thread = record.thread;
    access.caller.process = record.process;
    access.caller.cgroup = record.cgroup;
    access.caller.startTicks = record.startTicks;
    std::memcpy(access.caller.name, record.name, sizeof record.name);
    access.caller.name[sizeof record.name - 1] = '\0';
    all.accesses.push_back(access);
  }
  header.accessTail.store(header.accessHead, std::memory_order_release);
  all.dropped = header.accessesDropped.exchange(0);
  for (AccessCount& each : image_.accessCounts()) {
    if (each.node == 0) continue;
    all.counts.push_back({each.node, each.cgroup, each.uid, static_cast<AccessOutcome>(each.outcome), each.count, each.lastMs});
    each.node.store(0, std::memory_order_release);
  }
  if (hasUnattributed_) {
    hasUnattributed_ = false;
    for (NodeRecord& node : image_.nodes()) {
      const std::uint64_t count = node.id == 0 ? 0 : node.unattributed.exchange(0);
      if (count != 0) all.counts.push_back({node.id, 0, notAttributed, AccessOutcome::opened, count, 0});
    }
  }
  for (const CollectedAccess& access : all.accesses) {
    if (const auto known = cgroups_.find(access.caller.cgroup); known != cgroups_.end()) all.cgroups.insert(*known);
  }
  for (const CollectedCount& count : all.counts) {
    if (const auto known = cgroups_.find(count.cgroup); known != cgroups_.end()) all.cgroups.insert(*known);
  }
  return all;
}

}  // namespace inro
