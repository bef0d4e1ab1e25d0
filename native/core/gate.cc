#include "gate.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace inro {
namespace {

// Whether one part of a cgroup's path is a container's: `ID`, `docker-ID.scope`, `libpod-ID` or `libpod-ID.scope`, as Docker and
// Podman name it with and without systemd. Not `libpod-conmon-ID.scope`, where what watches the container is.
bool isOfContainer(std::string_view name, std::string_view id) {
  constexpr std::string_view scope = ".scope";
  if (!name.ends_with(id) && name.ends_with(scope)) name.remove_suffix(scope.size());
  if (!name.ends_with(id)) return false;
  name.remove_suffix(id.size());
  return name.empty() || name == "docker-" || name == "libpod-";
}

// Where in a cgroup's path the container's own ends. 0: nowhere.
std::size_t endOfContainer(std::string_view path, std::string_view id) {
  if (id.empty()) return 0;
  for (std::size_t from = 0; from < path.size();) {
    const std::size_t end = std::min(path.find('/', from), path.size());
    if (isOfContainer(path.substr(from, end - from), id)) return end;
    from = end + 1;
  }
  return 0;
}

}  // namespace

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
    if (entry->cgroup == 0) {
      const std::size_t end = endOfContainer(path, above);
      if (end != 0 && callers_.isProtected(path.substr(0, end))) return true;
      continue;
    }
    // At the path there may be another cgroup by now, made anew.
    if (!above.empty() && path.size() > above.size() && path.starts_with(above) && (above == "/" || path[above.size()] == '/') &&
        callers_.cgroupAt(above) == entry->cgroup)
      return true;
  }
  return false;
}

}  // namespace inro
