// The reader of `npm run bench -- read`: what it does between two looks at the clock is one system call, or the four of a whole
// read. Prints one line of JSON for each thing it was told. Times are ns of CLOCK_MONOTONIC, which Node's hrtime is too.
//
//   reader whole PATH OPS MS      open, fstat, read, close, again and again: OPS times, or for MS
//   reader pread PATH OPS MS      pread on one descriptor
//   reader reopen PATH READS      READS preads, a new descriptor every 20
//   reader race                   then, line by line on standard input, what `race` below knows
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t maxBytes = 1 << 20;
constexpr std::uint64_t nsPerMs = 1'000'000;
constexpr std::uint64_t warmUpPart = 10;
constexpr std::uint64_t readsPerDescriptor = 20;
constexpr std::uint64_t longestWaitMs = 20'000;

std::uint64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

[[noreturn]] void fail(const char* what, const char* path) {
  fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

class File {
 public:
  explicit File(const char* path) : fd_(open(path, O_RDONLY | O_CLOEXEC)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// ---- how long one takes ----

char room[4096];

void whole(const char* path) {
  const File file(path);
  struct stat attributes;
  if (file.fd() < 0) fail("open", path);
  if (fstat(file.fd(), &attributes) != 0) fail("fstat", path);
  if (read(file.fd(), room, sizeof room) <= 0) fail("read", path);
}

void once(int fd, const char* path) {
  if (pread(fd, room, 64, 0) <= 0) fail("pread", path);
}

template <typename Operation>
void measure(std::uint64_t ops, std::uint64_t ms, Operation operation) {
  std::uint64_t warmUps = 0;
  const std::uint64_t warm = now() + ms * nsPerMs / warmUpPart;
  do {
    operation();
    warmUps++;
  } while (warmUps < ops && now() < warm);
  std::vector<std::uint64_t> took;
  took.reserve(ops);
  const std::uint64_t begin = now();
  std::uint64_t last = begin;
  while (took.size() < ops && last - begin < ms * nsPerMs) {
    operation();
    const std::uint64_t time = now();
    took.push_back(time - last);
    last = time;
  }
  const double mean = static_cast<double>(last - begin) / static_cast<double>(took.size());
  std::ranges::sort(took);
  const auto at = [&](double part) { return took[static_cast<std::size_t>(static_cast<double>(took.size() - 1) * part)]; };
  printf("{\"ops\":%zu,\"warmUps\":%" PRIu64 ",\"meanNs\":%.0f,\"p50Ns\":%" PRIu64 ",\"p99Ns\":%" PRIu64 "}\n", took.size(), warmUps,
         mean, at(0.5), at(0.99));
}

void reopen(const char* path, std::uint64_t reads) {
  for (std::uint64_t done = 0; done < reads;) {
    const File file(path);
    if (file.fd() < 0) fail("open", path);
    for (std::uint64_t i = 0; i < readsPerDescriptor && done < reads; i++, done++) once(file.fd(), path);
  }
  printf("{\"reads\":%" PRIu64 "}\n", reads);
}

// ---- what still succeeds after a wipe ----

thread_local sigjmp_buf faulted;

// A page of a mapping cannot be had.
void onBusError(int) { siglongjmp(faulted, 1); }

class Mapping {
 public:
  Mapping(const File& file, std::size_t bytes, int kind) : bytes_(bytes), at_(mmap(nullptr, bytes, PROT_READ, kind, file.fd(), 0)) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (at_ != MAP_FAILED) munmap(at_, bytes_);
  }
  bool exists() const { return at_ != MAP_FAILED; }
  // A byte of each page; false at the first one that faults.
  bool touch() const {
    if (sigsetjmp(faulted, 0) != 0) return false;
    for (std::size_t i = 0; i < bytes_; i += 4096) (void)static_cast<const volatile char*>(at_)[i];
    return true;
  }

 private:
  std::size_t bytes_;
  void* at_;
};

// One of the ways to read a file; true when it gave bytes.
class Way {
 public:
  Way(const std::string& path, std::size_t bytes) : path_(path), bytes_(bytes), file_(path.c_str()), buffer_(bytes) {}
  virtual ~Way() = default;
  virtual bool attempt() = 0;

 protected:
  std::string path_;
  std::size_t bytes_;
  File file_;
  std::vector<char> buffer_;
};

class ByDescriptor final : public Way {
 public:
  using Way::Way;
  bool attempt() override { return pread(file_.fd(), buffer_.data(), bytes_, 0) > 0; }
};

class ByName final : public Way {
 public:
  using Way::Way;
  bool attempt() override {
    const File file(path_.c_str());
    return file.fd() >= 0 && read(file.fd(), buffer_.data(), bytes_) > 0;
  }
};

class ByMapping final : public Way {
 public:
  ByMapping(const std::string& path, std::size_t bytes, int kind) : Way(path, bytes), mapping_(file_, bytes, kind) {}
  bool isPossible() const { return mapping_.exists(); }
  bool attempt() override { return mapping_.touch(); }

 private:
  Mapping mapping_;
};

// Reads in one way until it is stopped, and remembers when each of the last attempts began.
class Racer {
 public:
  explicit Racer(std::unique_ptr<Way> way) : way_(std::move(way)), log_(1 << 16), thread_([this] { run(); }) {}
  ~Racer() { stop(); }

  bool isReading() const { return successes_ > 0; }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::uint64_t lastBegan() const { return lastBegan_; }
  // Attempts that began after `ns`, and how many of them gave bytes.
  void count(std::uint64_t ns, std::uint64_t& tried, std::uint64_t& late) const {
    for (std::size_t i = 0; i < std::min(attempts_, log_.size()); i++) {
      if (log_[i].began <= ns) continue;
      tried++;
      if (log_[i].succeeded) late++;
    }
  }

 private:
  struct Attempt {
    std::uint64_t began;
    bool succeeded;
  };
  void run() {
    while (!stopping_) {
      const std::uint64_t began = now();
      const bool succeeded = way_->attempt();
      log_[attempts_++ % log_.size()] = {began, succeeded};
      if (succeeded) successes_ = successes_ + 1;
      lastBegan_ = began;
    }
  }

  std::unique_ptr<Way> way_;
  std::vector<Attempt> log_;
  std::size_t attempts_ = 0;
  std::atomic<std::uint64_t> successes_ = 0;
  std::atomic<std::uint64_t> lastBegan_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// Waits until the condition holds for each.
template <typename Condition>
void await(const std::vector<std::unique_ptr<Racer>>& racers, Condition condition) {
  const std::uint64_t end = now() + longestWaitMs * nsPerMs;
  while (!std::ranges::all_of(racers, [&](const auto& racer) { return condition(*racer); })) {
    if (now() > end) {
      fprintf(stderr, "a thread got no further in %" PRIu64 " ms\n", longestWaitMs);
      exit(1);
    }
    const timespec pause{0, 200'000};
    nanosleep(&pause, nullptr);
  }
}

// Commands, a line each:
//   hold PATH BYTES MAPPED     opens it, reads it once, maps it when MAPPED is 1, and keeps that
//   start PATH BYTES MAPPED    four threads that read it; says so when each has had bytes
//   judge NS                   what began after NS; then all ends
//   drop                       ends what `hold` keeps
void race() {
  struct sigaction action {};
  action.sa_handler = onBusError;
  action.sa_flags = SA_NODEFER;  // left by a jump
  sigaction(SIGBUS, &action, nullptr);

  std::vector<std::unique_ptr<Racer>> racers;
  std::vector<std::unique_ptr<Way>> held;
  char word[16];
  char path[4096];
  std::size_t bytes;
  int isMapped;
  std::uint64_t ns;
  while (scanf("%15s", word) == 1) {
    const std::string command = word;
    if (command == "hold" && scanf("%4095s %zu %d", path, &bytes, &isMapped) == 3 && bytes <= maxBytes) {
      held.push_back(std::make_unique<ByDescriptor>(path, bytes));
      if (isMapped == 1) held.push_back(std::make_unique<ByMapping>(path, bytes, MAP_PRIVATE));
      for (const auto& way : held)
        if (!way->attempt()) fail("hold", path);
      printf("{}\n");
    } else if (command == "start" && scanf("%4095s %zu %d", path, &bytes, &isMapped) == 3 && bytes <= maxBytes) {
      std::vector<std::unique_ptr<Way>> ways;
      ways.push_back(std::make_unique<ByDescriptor>(path, bytes));
      ways.push_back(std::make_unique<ByName>(path, bytes));
      if (isMapped == 1) {
        for (const int kind : {MAP_PRIVATE, MAP_SHARED}) {
          auto way = std::make_unique<ByMapping>(path, bytes, kind);
          if (way->isPossible()) ways.push_back(std::move(way));  // MAP_SHARED: from Linux 6.6
        }
      } else {
        ways.push_back(std::make_unique<ByDescriptor>(path, bytes));
        ways.push_back(std::make_unique<ByName>(path, bytes));
      }
      for (auto& way : ways) racers.push_back(std::make_unique<Racer>(std::move(way)));
      await(racers, [](const Racer& racer) { return racer.isReading(); });
      printf("{}\n");
    } else if (command == "judge" && scanf("%" SCNu64, &ns) == 1) {
      // Each has tried at least once after that moment.
      await(racers, [ns](const Racer& racer) { return racer.lastBegan() > ns; });
      for (const auto& racer : racers) racer->stop();
      std::uint64_t tried = 0;
      std::uint64_t late = 0;
      for (const auto& racer : racers) racer->count(ns, tried, late);
      racers.clear();
      printf("{\"tried\":%" PRIu64 ",\"late\":%" PRIu64 "}\n", tried, late);
    } else if (command == "drop") {
      held.clear();
      printf("{}\n");
    } else {
      fprintf(stderr, "not understood: %s\n", word);
      exit(2);
    }
    fflush(stdout);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  const char* const path = count > 2 ? arguments[2] : "";
  const std::uint64_t ops = count > 3 ? strtoull(arguments[3], nullptr, 10) : 0;
  const std::uint64_t ms = count > 4 ? strtoull(arguments[4], nullptr, 10) : 0;
  if (what == "whole" && ops > 0 && ms > 0) {
    measure(ops, ms, [path] { whole(path); });
  } else if (what == "pread" && ops > 0 && ms > 0) {
    const File file(path);
    if (file.fd() < 0) fail("open", path);
    measure(ops, ms, [&] { once(file.fd(), path); });
  } else if (what == "reopen" && ops > 0) {
    reopen(path, ops);
  } else if (what == "race") {
    race();
  } else {
    fprintf(stderr, "not understood\n");
    return 2;
  }
  return 0;
}
