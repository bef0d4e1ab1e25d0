#include "server.h"

#include <string.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <shared_mutex>
#include <system_error>
#include <thread>

#include "registers.h"

namespace inro {
namespace {

constexpr std::chrono::milliseconds wakeAgain{1};
constexpr std::chrono::milliseconds errorPause{10};
constexpr int maxErrorsInARow = 100;

}  // namespace

Server::Server(Core& core, std::unique_ptr<Channel> channel, std::uint32_t newestMinor, std::uint64_t scrubMs)
    : core_(core), channel_(std::move(channel)), responder_(core, callers_, newestMinor), scrubMs_(scrubMs) {}

std::unique_ptr<Server> Server::start(Core& core, std::unique_ptr<Channel> channel, std::size_t workers,
                                      std::uint32_t newestMinor, std::string& error, std::uint64_t scrubMs) {
  std::unique_ptr<Server> server(new Server(core, std::move(channel), newestMinor, scrubMs));
  for (std::size_t i = 0; i < workers; i++) {
    // Not memfd_secret: the kernel cannot take a reply from there (writev: EFAULT).
    auto buffer = LockedMapping::map(requestBytes + replyBytes, false, error);
    if (!buffer) return nullptr;
    server->buffers_.push_back(std::move(*buffer));
  }
  core.onTold([raw = server.get()](const Told& told) {
    Notifier* notifier;
    {
      const std::scoped_lock guard(raw->lock_);
      notifier = raw->notifier_.get();
    }
    return notifier == nullptr || notifier->tell(told);
  });
  for (LockedMapping& buffer : server->buffers_) {
    server->running_++;
    auto worker = Thread::start([raw = server.get(), &buffer] { raw->work(buffer); }, error);
    if (!worker) {
      server->running_--;
      return nullptr;
    }
    server->workers_.push_back(std::move(*worker));
  }
  if (server->responder_.negotiated().minor != 0) server->ready();  // adopted: there is no second INIT
  return server;
}

Server::~Server() {
  core_.onTold(nullptr);
  // While the workers still answer: what it is saying may wait for a reader that waits for one of them.
  std::unique_ptr<Notifier> notifier;
  {
    const std::scoped_lock guard(lock_);
    closing_ = true;
    notifier = std::move(notifier_);
  }
  notifier.reset();
  stopping_ = true;
  // A signal may come just before a worker waits, so again until all have seen `stopping_`.
  while (running_ > 0) {
    for (Thread& worker : workers_) worker.interrupt();
    std::this_thread::sleep_for(wakeAgain);
  }
  workers_.clear();
}

bool Server::waitReady(std::uint64_t ms, std::string& error) {
  std::unique_lock guard(lock_);
  changed_.wait_for(guard, std::chrono::milliseconds(ms),
                    [this] { return ready_ || ended_ || !responder_.refusal().empty(); });
  if (ready_) return true;
  error = responder_.refusal();
  if (error.empty()) error = ended_ ? (why_.empty() ? "the mount went away" : why_) : "the kernel sent no INIT request";
  return false;
}

Server::Facts Server::facts() {
  Facts facts;
  facts.negotiated = responder_.negotiated();
  facts.requests = requests_;
  facts.malformed = malformed_;
  facts.buffersLocked = std::ranges::all_of(buffers_, [](const LockedMapping& buffer) { return buffer.locked(); });
  const std::scoped_lock guard(lock_);
  if (notifier_) facts.notifier = notifier_->facts();
  facts.connected = ready_ && !ended_;
  facts.ended = why_;
  return facts;
}

bool Server::takeOver(std::string& error) {
  const fuse::OutHeader resend{sizeof resend, static_cast<std::int32_t>(fuse::Notice::resend), 0};
  const int failed = channel_->send(std::as_bytes(std::span(&resend, 1)));
  if (failed != 0) {
    error = "the kernel does not repeat what was not answered: " + std::generic_category().message(failed);
    return false;
  }
  core_.retell();
  return true;
}

void Server::ready() {
  std::string error;
  {
    const std::scoped_lock guard(lock_);
    if (ready_ || closing_) return;
    notifier_ = Notifier::start(*channel_, responder_.negotiated().minor >= fuse::epochMinor, scrubMs_, error);
    ready_ = notifier_ != nullptr;
    changed_.notify_all();
  }
  if (!error.empty()) end(error);
}

void Server::end(const std::string& why) {
  const std::scoped_lock guard(lock_);
  ended_ = true;
  if (why_.empty()) why_ = why;
  changed_.notify_all();
}

void Server::reply(std::span<const std::byte> request, std::span<const std::byte> reply) {
  const int error = channel_->send(reply);
  if (error == 0 || error == ENOENT || error == ENODEV) return;  // ENOENT: the reader has gone meanwhile
  // Nobody may be left waiting for ever.
  fuse::InHeader header{};
  memcpy(&header, request.data(), sizeof header);
  const fuse::OutHeader failed{sizeof failed, -EIO, header.unique};
  (void)channel_->send(std::as_bytes(std::span(&failed, 1)));
}

void Server::work(LockedMapping& buffer) {
  const std::span<std::byte> in = buffer.bytes().first(requestBytes);
  const std::span<std::byte> out = buffer.bytes().subspan(requestBytes, replyBytes);
  int errorsInARow = 0;
  while (!stopping_) {
    const ssize_t received = channel_->receive(in);
    if (received < 0) {
      const int error = static_cast<int>(-received);
      // ENOENT: the request was taken back before it was read.
      if (error == EINTR || error == EAGAIN || error == ENOENT) continue;
      if (error == ENODEV) {
        end("");
        break;
      }
      if (++errorsInARow >= maxErrorsInARow) {
        end("reading requests fails: " + std::generic_category().message(error));
        break;
      }
      std::this_thread::sleep_for(errorPause);
      continue;
    }
    errorsInARow = 0;
    requests_.fetch_add(1, std::memory_order_relaxed);
    const std::span<const std::byte> request = in.first(static_cast<std::size_t>(received));
    std::size_t length;
    {
      // Until the answer is given and its bytes are gone from here: a wipe waits for this.
      const std::shared_lock guard(core_.lock());
      length = responder_.answer(request, out);
      wipeVectorRegisters();
      if (length > 0) reply(request, out.first(length));
      explicit_bzero(out.data(), length);
    }
    if (length == 0 && request.size() < sizeof(fuse::InHeader)) malformed_++;
    if (!ready_ && responder_.negotiated().minor != 0) ready();
    if (!ready_ && !responder_.refusal().empty()) end(responder_.refusal());
  }
  workerEnds();
}

// Readers must not wait for answers that nobody gives any more.
void Server::workerEnds() {
  if (running_.fetch_sub(1) == 1 && !stopping_) channel_->end();
}

}  // namespace inro
