// Who made a request, asked of the kernel while the request is unanswered: its thread cannot end before, so no other thread can
// have its number.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace inro {

struct Caller {
  std::uint32_t thread = 0;  // 0: of another pid namespace, who it is cannot be told
  std::uint32_t process = 0;
  std::uint64_t cgroup = 0;      // id in the unified hierarchy, never used twice; 0: unknown
  std::uint64_t startTicks = 0;  // when the process began: proc_pid_stat(5), field 22
  char name[16] = {};            // of the process: proc_pid_comm(5); the process may choose it
};

class CallerSource {
 public:
  virtual ~CallerSource() = default;
  // The cgroup of a thread in the unified hierarchy; 0 when it cannot be told.
  virtual std::uint64_t cgroupOf(std::uint32_t thread) = 0;
  virtual Caller identify(std::uint32_t thread) = 0;
  // Its path in the unified hierarchy, as proc_pid_cgroup(5) has it; empty when it cannot be told.
  virtual std::string cgroupPath(std::uint32_t thread) = 0;
  // What is at a path of the unified hierarchy now; 0: nothing.
  virtual std::uint64_t cgroupAt(const std::string& path) = 0;
  // Whether nobody but root or this user can make a cgroup at this path.
  virtual bool isProtected(const std::string& path) = 0;
};

// Asks pidfds (pidfd_open(2), PIDFD_GET_INFO, Linux 6.13) and keeps some of them: one of a thread that has ended says so, whoever
// has its number by then. Otherwise /proc, which takes some 10 us.
class KernelCallers final : public CallerSource {
 public:
  KernelCallers();
  KernelCallers(const KernelCallers&) = delete;
  KernelCallers& operator=(const KernelCallers&) = delete;
  ~KernelCallers() override;

  std::uint64_t cgroupOf(std::uint32_t thread) override;
  Caller identify(std::uint32_t thread) override;
  std::string cgroupPath(std::uint32_t thread) override;
  std::uint64_t cgroupAt(const std::string& path) override;
  bool isProtected(const std::string& path) override;

 private:
  // Open descriptors: of the thread, and of what shows its process's name.
  struct Kept {
    std::uint32_t thread = 0;
    std::uint32_t process = 0;
    int pidfd = -1;
    int comm = -1;
    std::uint64_t startTicks = 0;
    std::uint64_t lastUse = 0;
  };
  static constexpr std::size_t maxKept = 64;

  // Null when pidfds cannot tell. `cgroup` is of this moment.
  Kept* find(std::uint32_t thread, std::uint64_t& cgroup);
  void complete(Kept& kept);
  static void drop(Kept& kept);
  Caller fromProc(std::uint32_t thread);
  std::string read(const std::string& path, std::size_t maxBytes);

  std::mutex lock_;
  std::vector<Kept> kept_;
  std::uint64_t uses_ = 0;
  bool pidfdsTell_ = true;
  int proc_ = -1;
  std::string unified_;  // where the unified hierarchy is mounted; empty: nowhere
};

// Sends a signal to the process that has this id since then (proc_pid_stat(5), field 22). 0 or an errno; ESRCH also when
// another process has the id by now.
int signalProcess(std::uint32_t process, std::uint64_t startTicks, int signal);

}  // namespace inro
