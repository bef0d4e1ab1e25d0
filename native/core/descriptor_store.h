// The service manager's file descriptor store (sd_notify(3), sd_listen_fds(3)), spoken directly: it is a datagram and three
// environment variables. What is stored outlives this process, however it ends.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace inro {

struct StoredDescriptor {
  std::string name;
  int fd;
};

// Sends lines such as READY=1 to $NOTIFY_SOCKET, with a descriptor beside them unless it is -1. 0 or an errno; ENOENT when no
// service manager listens.
int notifyServiceManager(const std::string& lines, int fd = -1);
// One datagram to a unix socket of another program: 0 or an errno.
int sendDatagram(const std::string& path, const std::string& bytes);
// Waits until the manager has taken in all that this process sent before (sd_notify_barrier(3)): what a process sent that has
// ended cannot be told to be its service's. 0 or an errno; ETIMEDOUT.
int awaitServiceManager(int ms);
// What was handed to this process at its start ($LISTEN_FDS, $LISTEN_FDNAMES, if $LISTEN_PID is this process), close-on-exec.
// The variables are removed, so that a second call, and children, find nothing.
std::vector<StoredDescriptor> takeStored();

}  // namespace inro
