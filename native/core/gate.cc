#include "gate.h"

#include <string>

namespace inro {

bool Gate::passes(const Nodes& nodes, std::uint64_t directory, std::uint32_t thread) {
  if (directory == 0) return true;
  const Image& image = nodes.image();
  const NodeRecord* const node = image.find(directory);
  if (node == nullptr) return false;
  if (node->gate == gateOpen) return true;
  const GateBlock* const gate = image.gate(*node);
  if (gate != nullptr && gate->open != 0) return true;
  if (gate == nullptr || gate->count == 0) return false;
  const std::uint64_t cgroup = callers_.cgroupOf(thread);
  if (cgroup == 0) return false;
  const GateEntry* entry = Image::firstEntry(gate);
  for (std::uint32_t i = 0; i < gate->count; i++, entry = Image::nextEntry(entry)) {
    if (entry->cgroup == cgroup) return true;
  }
  const Key key{directory, cgroup};
  {
    const std::scoped_lock guard(lock_);
    if (epoch_ != nodes.gateEpoch() || known_.size() >= maxKnown) known_.clear();
    epoch_ = nodes.gateEpoch();
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
  }
  const bool below = isBelow(*gate, cgroup, thread);
  const std::scoped_lock guard(lock_);
  known_.emplace(key, below);
  return below;
}

bool Gate::isBelow(const GateBlock& gate, std::uint64_t cgroup, std::uint32_t thread) {
  std::string path = book_.cgroupPath(cgroup);
  if (path.empty()) {
    path = callers_.cgroupPath(thread);
    // The thread may have been moved meanwhile: whose path this is must be certain.
    if (path.empty() || callers_.cgroupAt(path) != cgroup) return false;
    book_.nameCgroup(cgroup, path);
  }
  const GateEntry* entry = Image::firstEntry(&gate);
  for (std::uint32_t i = 0; i < gate.count; i++, entry = Image::nextEntry(entry)) {
    const std::string above(entry->path());
    // At the path there may be another cgroup by now, made anew.
    if (!above.empty() && path.size() > above.size() && path.starts_with(above) && (above == "/" || path[above.size()] == '/') &&
        callers_.cgroupAt(above) == entry->cgroup)
      return true;
  }
  return false;
}

}  // namespace inro
