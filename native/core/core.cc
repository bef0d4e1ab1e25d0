#include "core.h"

#include <time.h>

#include <mutex>
#include <shared_mutex>
#include <utility>

namespace inro {
namespace {

constexpr std::uint32_t rootMode = 0700;

std::uint64_t clockMs(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace

ReadWriteLock::ReadWriteLock() {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
  pthread_rwlock_init(&lock_, &attributes);
  pthread_rwlockattr_destroy(&attributes);
}

std::uint64_t boottimeMs() { return clockMs(CLOCK_BOOTTIME); }

std::uint64_t realtimeMs() { return clockMs(CLOCK_REALTIME); }

Core::Core(LockedMapping mapping, std::size_t heapOffset, Word* heapUsed)
    : mapping_(std::move(mapping)), arena_(mapping_.bytes().subspan(heapOffset), heapUsed) {}

std::unique_ptr<Core> Core::create(const CoreOptions& options, std::string& error) {
  const std::size_t before = options.nodes == 0 ? 0 : layoutOf(options.nodes).heapOffset;
  auto mapping = LockedMapping::map(before + options.heapBytes, options.allowSecret, error, options.nodes != 0);
  if (!mapping) return nullptr;
  return createOn(std::move(*mapping), options, error);
}

std::unique_ptr<Core> Core::createOn(LockedMapping mapping, const CoreOptions& options, std::string& error) {
  if (options.nodes == 0) return std::unique_ptr<Core>(new Core(std::move(mapping), 0, nullptr));
  const std::span<std::byte> memory = mapping.bytes();
  if (options.nodes < firstFreeSlot || options.nodes > maxNodes || layoutOf(options.nodes).heapOffset >= memory.size()) {
    error = std::to_string(options.nodes) + " nodes are too few or too many for " + std::to_string(memory.size()) + " bytes";
    return nullptr;
  }
  const Image image =
      Image::format(memory, options.nodes, rootMode, options.uid, options.gid, realtimeMs());
  return over(std::move(mapping), image, error);
}

std::unique_ptr<Core> Core::adopt(LockedMapping mapping, std::string& error) {
  const auto image = Image::open(mapping.bytes(), error);
  return image ? over(std::move(mapping), *image, error) : nullptr;
}

std::unique_ptr<Core> Core::over(LockedMapping mapping, const Image& image, std::string& error) {
  std::unique_ptr<Core> core(new Core(std::move(mapping), image.header().heapOffset, &image.header().heapUsed));
  auto nodes = Nodes::on(image, core->arena_, error);
  if (!nodes) {
    core->arena_.letGo();  // not ours to zero
    return nullptr;
  }
  core->nodes_ = std::move(nodes);
  core->accessBook_.emplace(image);
  core->arena_.zeroFree();
  return core;
}

Core::~Core() { wipe(); }

std::optional<Arena::Piece> Core::alloc(std::size_t bytes) {
  const std::scoped_lock guard(lock_);
  if (!isOurs_) return std::nullopt;
  return arena_.alloc(bytes);
}

std::optional<Arena::PieceId> Core::find(const void* start) {
  const std::scoped_lock guard(lock_);
  return arena_.find(start);
}

std::optional<Arena::Piece> Core::valueOf(std::uint64_t node) {
  const std::scoped_lock guard(lock_);
  const NodeRecord* const record = nodes_->image().find(node);
  if (record == nullptr || static_cast<NodeKind>(record->kind) != NodeKind::file) return std::nullopt;
  const auto id = arena_.find(nodes_->image().bytes().data() + record->content);
  if (!id) return std::nullopt;
  return Arena::Piece{*id, arena_.bytesOf(*id).first(record->skip + record->size)};
}

bool Core::serves(const NodeRecord& node) const {
  const ImageHeader& header = nodes_->image().header();
  if (header.closed.load(std::memory_order_acquire) != 0) return false;
  if ((node.flags & nodeProbe) != 0) return true;
  const std::uint64_t untilMs = header.serveUntilMs.load(std::memory_order_acquire);
  if (untilMs == 0) return false;  // nothing is, whatever its own lease
  std::int64_t ownMs = 0;
  if (__builtin_add_overflow(untilMs, node.leaseShiftMs, &ownMs)) return node.leaseShiftMs > 0;
  return static_cast<std::int64_t>(boottimeMs()) < ownMs;
}

Core::Readable Core::readable(std::uint64_t node) const {
  const NodeRecord* const record = nodes_->image().find(node);
  if (record == nullptr || static_cast<NodeKind>(record->kind) != NodeKind::file) return {AccessOutcome::wiped, {}};
  const std::uint64_t content = record->content.load(std::memory_order_acquire);
  const bool isOver = (record->flags & nodeSuperseded) != 0 && boottimeMs() >= record->readableUntilMs;
  if (content == 0 || isOver) return {AccessOutcome::wiped, {}};
  if (!serves(*record)) return {AccessOutcome::leaseOver, {}};
  return {AccessOutcome::opened, std::span<const std::byte>(nodes_->image().bytes()).subspan(content + record->skip, record->size)};
}

Released Core::release(Arena::PieceId id) {
  Told told;
  {
    const std::scoped_lock guard(lock_);
    if (!isOurs_ || arena_.bytesOf(id).empty()) return Released::notOut;  // another piece may be at the same place by now
    if (nodes_) nodes_->forget(id, told);
    arena_.release(id);
  }
  return tell(told) ? Released::done : Released::late;
}

ArenaUse Core::use() {
  const std::scoped_lock guard(lock_);
  return arena_.use();
}

std::size_t Core::nodesUsed() {
  const std::scoped_lock guard(lock_);
  return nodes_ ? nodes_->used() : 0;
}

void Core::wipe() {
  const std::scoped_lock guard(lock_);
  if (!isOurs_) return;
  if (nodes_) nodes_->image().header().closed.store(1, std::memory_order_release);
  arena_.wipe();
}

void Core::letGo() {
  const std::scoped_lock guard(lock_);
  isOurs_ = false;
  arena_.letGo();
}

std::optional<std::uint64_t> Core::reserve() {
  const std::scoped_lock guard(lock_);
  if (!isOurs_) return std::nullopt;
  return nodes_->reserve();
}

void Core::giveBack(std::uint64_t id) {
  const std::scoped_lock guard(lock_);
  if (isOurs_) nodes_->giveBack(id);
}

bool Core::commit(const Step& step, std::string& error) {
  Told told;
  bool done;
  {
    const std::scoped_lock guard(lock_);
    if (!isOurs_) {
      error = "the memory is another process's by now";
      return false;
    }
    nodes_->expire(boottimeMs(), told);
    done = nodes_->commit(step, told, error);
  }
  tell(told);  // also when it was refused: of what has expired
  return done;
}

bool Core::keepNote(std::span<const std::byte> note) {
  const std::scoped_lock guard(lock_);
  return isOurs_ && nodes_->image().header().closed == 0 && nodes_->keepNote(note);
}

void Core::serveUntil(std::uint64_t boottimeMs) {
  const std::scoped_lock guard(lock_);
  if (isOurs_) nodes_->image().header().serveUntilMs.store(boottimeMs, std::memory_order_release);
}

std::uint64_t Core::servedUntil() {
  const std::scoped_lock guard(lock_);
  return nodes_->image().header().serveUntilMs;
}

Collected Core::collectAccesses() {
  const std::scoped_lock guard(lock_);
  return isOurs_ ? accessBook_->collect() : Collected{};
}

void Core::retell() {
  Told told;
  {
    const std::scoped_lock guard(lock_);
    nodes_->wakeAllWaiters(told);
  }
  tell(told);
}

void Core::forgetConnection() {
  const std::scoped_lock guard(lock_);
  nodes_->removeAllWaiters();
  nodes_->image().header().fuseMinor.store(0, std::memory_order_release);
}

void Core::onTold(std::function<bool(const Told&)> tell) {
  const std::scoped_lock guard(tellLock_);
  tell_ = std::move(tell);
}

bool Core::tell(const Told& told) {
  const std::scoped_lock guard(tellLock_);
  return tell_ ? tell_(told) : true;
}

}  // namespace inro
