// Descriptors from one process to another over a unix socket (SCM_RIGHTS, unix(7)), between processes of one user alone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace inro {

constexpr std::size_t maxPassedDescriptors = 8;

// Connects to a socket that somebody listens on and sends the descriptors. Nothing is sent unless the other side runs as this user
// or as root. Empty, or why it failed.
std::string passDescriptors(const std::string& path, std::span<const int> descriptors, std::uint64_t ms);

// Listens on a socket, mode 0600, that must not be there yet.
class DescriptorReceiver {
 public:
  static std::optional<DescriptorReceiver> listen(const std::string& path, std::string& error);
  DescriptorReceiver(DescriptorReceiver&& other) noexcept;
  DescriptorReceiver(const DescriptorReceiver&) = delete;
  DescriptorReceiver& operator=(const DescriptorReceiver&) = delete;
  DescriptorReceiver& operator=(DescriptorReceiver&&) = delete;
  // Removes the socket.
  ~DescriptorReceiver();

  // Takes what the first to connect sends, if it runs as this user or as root. Close-on-exec. Empty on failure; then `error` says
  // why.
  std::vector<int> receive(std::uint64_t ms, std::string& error);

 private:
  DescriptorReceiver(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;
};

}  // namespace inro
