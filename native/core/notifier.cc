#include "notifier.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>

#include "fuse_protocol.h"

namespace inro {

using fuse::Notice;

namespace {

// Names wait only while a reader holds a directory's lock; there is no harm in not telling inotify of one.
constexpr std::size_t maxWaitingNames = 65'536;
constexpr std::size_t storeBytes = 64 * 1024;
// How long a change waits for its names to be told. They take microseconds each, unless a reader holds the directory.
constexpr std::chrono::milliseconds namesFirst{20};

class Message {
 public:
  explicit Message(Notice notice) {
    const fuse::OutHeader header{0, static_cast<std::int32_t>(notice), 0};
    put(&header, sizeof header);
  }
  template <typename T>
  Message& with(const T& value) {
    put(&value, sizeof value);
    return *this;
  }
  Message& withName(const std::string& name) {
    put(name.c_str(), name.size() + 1);
    return *this;
  }
  Message& withZeros(std::size_t bytes) {
    text_.append(bytes, '\0');
    return *this;
  }
  std::span<const std::byte> bytes() {
    const auto length = static_cast<std::uint32_t>(text_.size());
    std::memcpy(text_.data(), &length, sizeof length);
    return std::as_bytes(std::span(text_));
  }

 private:
  void put(const void* data, std::size_t size) { text_.append(static_cast<const char*>(data), size); }
  std::string text_;
};

}  // namespace

std::unique_ptr<Notifier> Notifier::start(Channel& channel, bool canEpoch, std::uint64_t scrubMs, std::string& error) {
  std::unique_ptr<Notifier> notifier(new Notifier(channel, canEpoch, scrubMs));
  auto thread = Thread::start([raw = notifier.get()] { raw->run(); }, error);
  if (!thread) return nullptr;
  notifier->thread_.emplace(std::move(*thread));
  return notifier;
}

Notifier::~Notifier() {
  {
    const std::scoped_lock guard(lock_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.reset();
}

bool Notifier::tell(const Told& told) {
  std::unique_lock guard(lock_);
  bool allNames = true;
  for (const Told::Name& name : told.names) {
    if (jobs_.size() < maxWaitingNames) {
      jobs_.push_back(Gone{name});
      waitingNames_++;
    } else {
      facts_.droppedNames++;
      allNames = false;
    }
  }
  for (const Told::Mapped& mapped : told.mapped) {
    // In front: a wipe waits for it.
    jobs_.push_front(Scrub{mapped});
    facts_.pendingScrubs++;
  }
  wake_.notify_one();
  // What sends readers to the names comes after the names: an entry that a reader has the kernel drop is not told to inotify.
  if (!told.names.empty())
    allNames = done_.wait_for(guard, namesFirst, [this] { return waitingNames_ == 0; }) && allNames;
  guard.unlock();

  // None of these waits for anything. ENOENT: the kernel does not know the node (any more), which is as well.
  if (!allNames && canEpoch_) forgetAll();
  for (const std::uint64_t directory : told.directories) invalidate(directory, -1);
  for (const std::uint64_t waiter : told.waiters)
    (void)channel_.send(Message(Notice::poll).with(fuse::NotifyPollOut{waiter}).bytes());

  guard.lock();
  if (told.mapped.empty() && !told.wasMapped) return true;
  const bool isDone = done_.wait_for(guard, std::chrono::milliseconds(scrubMs_), [this] { return facts_.pendingScrubs == 0; });
  if (!isDone) facts_.lateScrubs++;
  return isDone;
}

void Notifier::forgetAll() { (void)channel_.send(Message(Notice::incEpoch).bytes()); }

Notifier::Facts Notifier::facts() {
  const std::scoped_lock guard(lock_);
  return facts_;
}

void Notifier::run() {
  std::unique_lock guard(lock_);
  for (;;) {
    wake_.wait(guard, [this] { return stopping_ || !jobs_.empty(); });
    if (isDone()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    guard.unlock();
    say(job);
    guard.lock();
    std::holds_alternative<Scrub>(job) ? facts_.pendingScrubs-- : waitingNames_--;
    if (facts_.pendingScrubs == 0 || waitingNames_ == 0) done_.notify_all();
  }
}

// What is left are names: inotify is not told of the end.
bool Notifier::isDone() const { return stopping_ && (jobs_.empty() || std::holds_alternative<Gone>(jobs_.front())); }

void Notifier::say(const Job& job) {
  if (const auto* const gone = std::get_if<Gone>(&job)) sayGone(gone->name);
  if (const auto* const scrub = std::get_if<Scrub>(&job)) sayScrub(scrub->mapped);
}

// inotify hears of it, and the kernel forgets the name. ENOENT: it does not know it.
void Notifier::sayGone(const Told::Name& name) {
  const auto bytes = static_cast<std::uint32_t>(name.name.size());
  const int error =
      channel_.send(Message(Notice::remove).with(fuse::NotifyDeleteOut{name.parent, name.child, bytes, 0}).withName(name.name).bytes());
  if (error == 0 || error == ENOENT) return;
  // Not deleted (busy, or another node is there already): at least no longer believed.
  const int kept =
      channel_.send(Message(Notice::invalEntry).with(fuse::NotifyInvalEntryOut{name.parent, bytes, 0}).withName(name.name).bytes());
  if (kept != 0 && kept != ENOENT && canEpoch_) forgetAll();
}

// The zeros first: a page that somebody holds (a pipe it was spliced into, a locked mapping) outlives its invalidation.
void Notifier::sayScrub(const Told::Mapped& mapped) {
  for (std::uint64_t offset = 0; offset < mapped.bytes; offset += storeBytes) {
    const auto size = static_cast<std::uint32_t>(std::min<std::uint64_t>(storeBytes, mapped.bytes - offset));
    if (channel_.send(Message(Notice::store).with(fuse::NotifyStoreOut{mapped.node, offset, size, 0}).withZeros(size).bytes()) != 0) break;
  }
  invalidate(mapped.node, 0);
}

// From `offset` on; -1: attributes alone.
void Notifier::invalidate(std::uint64_t node, std::int64_t offset) {
  (void)channel_.send(Message(Notice::invalInode).with(fuse::NotifyInvalInodeOut{node, offset, 0}).bytes());
}

}  // namespace inro
