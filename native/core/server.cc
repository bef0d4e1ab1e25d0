#include "server.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <shared_mutex>
#include <system_error>

#include "registers.h"

namespace inro {
namespace {

// Interrupts a worker that waits in read(2). Node uses none of the realtime signals.
int wakeSignal() { return SIGRTMIN + 7; }

constexpr std::chrono::milliseconds wakeAgain{1};
constexpr std::chrono::milliseconds errorPause{10};
constexpr int maxErrorsInARow = 100;

void ignoreWakeSignal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // not SIG_IGN, which would interrupt nothing; no SA_RESTART, which would hide it
  sigaction(wakeSignal(), &action, nullptr);
}

// Signals for the process are JavaScript's business: none is to be handled on one of these threads.
void blockOtherSignals() {
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, wakeSignal());
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace

Server::Server(Core& core, std::unique_ptr<Channel> channel, std::uint32_t newestMinor)
    : core_(core), channel_(std::move(channel)), responder_(core, newestMinor) {}

std::unique_ptr<Server> Server::start(Core& core, std::unique_ptr<Channel> channel, std::size_t workers,
                                      std::uint32_t newestMinor, std::string& error) {
  std::unique_ptr<Server> server(new Server(core, std::move(channel), newestMinor));
  ignoreWakeSignal();
  for (std::size_t i = 0; i < workers; i++) {
    // Not memfd_secret: the kernel cannot take a reply from there (writev: EFAULT).
    auto buffer = LockedMapping::map(requestBytes + replyBytes, false, error);
    if (!buffer) return nullptr;
    server->buffers_.push_back(std::move(*buffer));
  }
  server->running_ = workers;
  core.onTold([raw = server.get()](const Told& told) {
    Notifier* notifier;
    {
      const std::scoped_lock guard(raw->lock_);
      notifier = raw->notifier_.get();
    }
    return notifier == nullptr || notifier->tell(told);
  });
  for (LockedMapping& buffer : server->buffers_)
    server->workers_.emplace_back([raw = server.get(), &buffer] { raw->work(buffer); });
  if (server->responder_.negotiated().minor != 0) server->ready();  // adopted: there is no second INIT
  return server;
}

Server::~Server() {
  core_.onTold(nullptr);
  stopping_ = true;
  // A signal may come just before a worker waits, so again until all have seen `stopping_`.
  while (running_ > 0) {
    for (std::thread& worker : workers_) pthread_kill(worker.native_handle(), wakeSignal());
    std::this_thread::sleep_for(wakeAgain);
  }
  for (std::thread& worker : workers_) worker.join();
  notifier_.reset();
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

void Server::ready() {
  const std::scoped_lock guard(lock_);
  if (ready_) return;
  notifier_ = std::make_unique<Notifier>(*channel_, responder_.negotiated().minor >= fuse::epochMinor);
  ready_ = true;
  changed_.notify_all();
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
  blockOtherSignals();
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
  running_--;
}

}  // namespace inro
