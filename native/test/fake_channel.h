// /dev/fuse as a script: requests are queued, replies and notifications are kept, and either side fails as told.
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "channel.h"
#include "fuse_protocol.h"

namespace inro::test {

// What the script and the server share: it outlives the channel, which the server owns.
struct FakeDevice {
  std::mutex lock;
  std::condition_variable changed;
  std::deque<std::string> requests;
  std::deque<int> receiveErrors;  // each is returned once, before any request
  std::vector<std::string> sent;
  std::function<int(std::string_view)> onSend;  // an errno to fail with; 0 takes it
  bool breaksOne = false;  // the first thread that asks gets EIO from then on
  std::thread::id broken;
  bool closed = false;
  std::atomic<bool> ended = false;  // by the server

  void ask(std::string request) {
    const std::scoped_lock guard(lock);
    requests.push_back(std::move(request));
    changed.notify_all();
  }
  void failReceive(int error, int times = 1) {
    const std::scoped_lock guard(lock);
    receiveErrors.insert(receiveErrors.end(), static_cast<std::size_t>(times), error);
    changed.notify_all();
  }
  void breakOne() {
    const std::scoped_lock guard(lock);
    breaksOne = true;
    changed.notify_all();
  }
  void close() {
    const std::scoped_lock guard(lock);
    closed = true;
    changed.notify_all();
  }
  static std::uint64_t uniqueOf(std::string_view message) {
    fuse::OutHeader header{};
    std::memcpy(&header, message.data(), std::min(sizeof header, message.size()));
    return header.unique;
  }
  static std::int32_t errorOf(std::string_view message) {
    fuse::OutHeader header{};
    std::memcpy(&header, message.data(), std::min(sizeof header, message.size()));
    return header.error;
  }
  // The reply to that request, waited for; empty after 10 s.
  std::string reply(std::uint64_t unique) {
    std::unique_lock guard(lock);
    std::string found;
    changed.wait_for(guard, std::chrono::seconds(10), [&] {
      for (const std::string& message : sent) {
        if (uniqueOf(message) == unique) found = message;
      }
      return !found.empty();
    });
    return found;
  }
  // How many notifications of a kind were sent.
  int notices(fuse::Notice notice) {
    const std::scoped_lock guard(lock);
    int count = 0;
    for (const std::string& message : sent) count += uniqueOf(message) == 0 && errorOf(message) == static_cast<std::int32_t>(notice);
    return count;
  }
  bool waitNotices(fuse::Notice notice, int count) {
    for (int i = 0; i < 10'000; i++) {
      if (notices(notice) >= count) return true;
      std::unique_lock guard(lock);
      changed.wait_for(guard, std::chrono::milliseconds(1));
    }
    return false;
  }
};

class FakeChannel final : public Channel {
 public:
  explicit FakeChannel(FakeDevice& device) : device_(device) {}

  ssize_t receive(std::span<std::byte> buffer) override {
    std::unique_lock guard(device_.lock);
    // Wakes up now and then with EINTR, as a signal makes read(2) do.
    device_.changed.wait_for(guard, std::chrono::milliseconds(2), [&] {
      return device_.closed || !device_.receiveErrors.empty() || !device_.requests.empty();
    });
    if (std::exchange(device_.breaksOne, false)) device_.broken = std::this_thread::get_id();
    if (device_.broken == std::this_thread::get_id()) return -EIO;
    if (!device_.receiveErrors.empty()) {
      const int error = device_.receiveErrors.front();
      device_.receiveErrors.pop_front();
      return -error;
    }
    if (!device_.requests.empty()) {
      const std::string request = std::move(device_.requests.front());
      device_.requests.pop_front();
      std::memcpy(buffer.data(), request.data(), std::min(buffer.size(), request.size()));
      return static_cast<ssize_t>(std::min(buffer.size(), request.size()));
    }
    return device_.closed ? -ENODEV : -EINTR;
  }

  int send(std::span<const std::byte> message) override {
    const std::string text(reinterpret_cast<const char*>(message.data()), message.size());
    std::function<int(std::string_view)> onSend;
    {
      const std::scoped_lock guard(device_.lock);
      onSend = device_.onSend;
    }
    const int error = onSend ? onSend(text) : 0;
    const std::scoped_lock guard(device_.lock);
    if (error == 0) device_.sent.push_back(text);
    device_.changed.notify_all();
    return error;
  }

  void end() override {
    device_.ended = true;
    device_.close();
  }

 private:
  FakeDevice& device_;
};

}  // namespace inro::test
