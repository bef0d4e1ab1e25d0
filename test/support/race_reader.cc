// A reader that races revocations. Files come in batches. Of each batch it first reads every file once, in one way; then it goes
// from file to file in the order in which they are revoked, and reads each again and again until its revoke has returned, and
// some times more. What such a later read gave is counted.
//
//   race_reader BOARD DIRECTORY FILES BATCH READERS PLACE WAY
//
// The board is a file that both sides map or write. Its first FILES bytes are the revoker's, one for each file: 1 when the file is
// there, 2 when its revoke has returned. Then comes for each batch one byte of each of the READERS: 1 when all of its files have
// been read once (or refused), 2 when it is done with them. PLACE is this reader's, from 0. File number N is DIRECTORY/tN/key;
// no byte of a value is zero. At the end it prints one line of JSON.
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr std::size_t maxValueBytes = 1 << 20;
constexpr std::size_t pageBytes = 4096;
constexpr std::size_t smallBytes = 64;
constexpr int readsAfter = 3;
constexpr useconds_t idleUs = 40;
// Several that are refused the same page without a pause keep each other from being told so, for seconds.
constexpr useconds_t refusedUs = 200;
constexpr int pipeBytes = 1 << 20;

// What a read gave: an error's number, or how many bytes, and whether one of them was not zero.
struct Outcome {
  int error = 0;
  bool plaintext = false;
};

std::vector<unsigned char> buffer(maxValueBytes);

bool anyPlain(const unsigned char* bytes, std::size_t length) {
  for (std::size_t i = 0; i < length; i++)
    if (bytes[i] != 0) return true;
  return false;
}

Outcome failed() { return {errno == 0 ? EIO : errno, false}; }

Outcome took(ssize_t length) { return length < 0 ? failed() : Outcome{0, anyPlain(buffer.data(), static_cast<std::size_t>(length))}; }

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    const int error = errno;
    if (fd_ >= 0) close(fd_);
    errno = error;
  }
  int fd() const { return fd_; }
  std::size_t size() const {
    struct stat status {};
    return fstat(fd_, &status) == 0 ? static_cast<std::size_t>(status.st_size) : 0;
  }

 private:
  int fd_;
};

class Pipe {
 public:
  Pipe() {
    if (pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) abort();
    (void)fcntl(ends_[1], F_SETPIPE_SZ, pipeBytes);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close(ends_[0]);
    close(ends_[1]);
  }
  int in() const { return ends_[1]; }
  int out() const { return ends_[0]; }
  // Whatever is in it.
  Outcome drain() const {
    ssize_t all = 0;
    while (all < static_cast<ssize_t>(buffer.size())) {
      const ssize_t some = read(ends_[0], buffer.data() + all, buffer.size() - static_cast<std::size_t>(all));
      if (some <= 0) break;
      all += some;
    }
    return took(all);
  }

 private:
  int ends_[2];
};

sigjmp_buf onBus;

// A byte of each page; SIGBUS is EFAULT.
Outcome touch(const volatile unsigned char* map, std::size_t length) {
  if (sigsetjmp(onBus, 1) != 0) return {EFAULT, false};
  bool plain = false;
  for (std::size_t at = 0; at < length; at += pageBytes) plain = plain || map[at] != 0;
  return {0, plain || map[length - 1] != 0};
}

class Mapping {
 public:
  Mapping(int fd, std::size_t length, int kind, bool lock) : length_(length) {
    void* const at = mmap(nullptr, length, PROT_READ, kind, fd, 0);
    if (at == MAP_FAILED) return;
    map_ = static_cast<const volatile unsigned char*>(at);
    if (lock) (void)mlock(at, length);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (map_ != nullptr) munmap(const_cast<unsigned char*>(map_), length_);
  }
  Outcome read() const { return map_ == nullptr ? Outcome{ENODEV, false} : touch(map_, length_); }

 private:
  const volatile unsigned char* map_ = nullptr;
  std::size_t length_;
};

using Read = std::function<Outcome()>;

// How a round's file is read: prepared before the revoke, then called again and again.
using Way = std::function<Read(const std::string& path)>;

Read onOpenFile(const std::string& path, const std::function<Outcome(const File&)>& read) {
  const auto file = std::make_shared<File>(path);
  return [file, read] { return file->fd() < 0 ? Outcome{EBADF, false} : read(*file); };
}

// The mapping from before the revoke, and a new one.
Read onMapping(const std::string& path, int kind, bool lock) {
  const auto file = std::make_shared<File>(path);
  const std::size_t length = file->fd() < 0 ? 0 : file->size();
  if (length == 0) return [] { return Outcome{EBADF, false}; };
  const auto old = std::make_shared<Mapping>(file->fd(), length, kind, lock);
  return [file, length, kind, old] {
    const Outcome first = old->read();
    if (first.plaintext) return first;
    return Mapping(file->fd(), length, kind, false).read();
  };
}

Outcome spliced(const File& file, const Pipe& pipe) {
  loff_t offset = 0;
  ssize_t all = 0;
  for (ssize_t some = 0; (some = splice(file.fd(), &offset, pipe.in(), nullptr, maxValueBytes, SPLICE_F_NONBLOCK)) > 0;) all += some;
  if (all == 0 && errno != 0) return failed();
  return {0, false};
}

const std::map<std::string, Way> ways{
    {"pread", [](const std::string& path) {
       return onOpenFile(path, [](const File& file) { return took(pread(file.fd(), buffer.data(), smallBytes, 0)); });
     }},
    {"pread of all", [](const std::string& path) {
       return onOpenFile(path, [](const File& file) { return took(pread(file.fd(), buffer.data(), buffer.size(), 0)); });
     }},
    {"open and read", [](const std::string& path) {
       return [path] {
         const File file(path);
         return file.fd() < 0 ? failed() : took(read(file.fd(), buffer.data(), smallBytes));
       };
     }},
    {"MAP_PRIVATE", [](const std::string& path) { return onMapping(path, MAP_PRIVATE, false); }},
    {"MAP_SHARED", [](const std::string& path) { return onMapping(path, MAP_SHARED, false); }},
    {"mlock", [](const std::string& path) { return onMapping(path, MAP_PRIVATE, true); }},
    {"splice", [](const std::string& path) {
       return onOpenFile(path, [](const File& file) {
         const Pipe pipe;
         const Outcome outcome = spliced(file, pipe);
         return outcome.error != 0 ? outcome : pipe.drain();
       });
     }},
    {"sendfile", [](const std::string& path) {
       return onOpenFile(path, [](const File& file) {
         const Pipe pipe;
         off_t offset = 0;
         const ssize_t sent = sendfile(pipe.in(), file.fd(), &offset, pipeBytes);
         return sent < 0 ? failed() : pipe.drain();
       });
     }},
    // Pages that lie in a pipe since before the revoke: looked at by tee(2), which leaves them there.
    {"filled pipe", [](const std::string& path) {
       const auto file = std::make_shared<File>(path);
       const auto pipe = std::make_shared<Pipe>();
       (void)spliced(*file, *pipe);
       return [file, pipe] {
         const Pipe copy;
         return tee(pipe->out(), copy.in(), pipeBytes, SPLICE_F_NONBLOCK) < 0 ? failed() : copy.drain();
       };
     }},
};

class Board {
 public:
  Board(const char* path, std::size_t files, std::size_t bytes) : files_(files) {
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    void* const map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    bytes_ = static_cast<unsigned char*>(map);
  }
  unsigned char stage(std::size_t file) const { return at(file).load(std::memory_order_acquire); }
  void say(std::size_t place, unsigned char value) const { at(files_ + place).store(value, std::memory_order_release); }

 private:
  std::atomic_ref<unsigned char> at(std::size_t place) const { return std::atomic_ref<unsigned char>(bytes_[place]); }
  unsigned char* bytes_;
  std::size_t files_;
};

constexpr unsigned char shown = 1;
constexpr unsigned char revoked = 2;
constexpr unsigned char tried = 1;
constexpr unsigned char done = 2;

struct Counts {
  std::uint64_t reads = 0;        // that gave plaintext and were begun before
  std::uint64_t files = 0;        // of which there was such a read
  std::uint64_t begunAfter = 0;   // reads that were begun after the revoke had returned
  std::uint64_t late = 0;         // of these, those that gave plaintext
  std::uint64_t zeros = 0;        // of these, those that gave nothing but zeros, or nothing
  std::map<int, std::uint64_t> refusals;  // of these, by errno
};

// One read; true when it was begun after the revoke had returned.
bool readOnce(const Board& board, std::size_t file, const Read& read, Counts& counts) {
  // Looked at first: what begins now has begun after the revoke, or it has not.
  const bool isAfter = board.stage(file) >= revoked;
  errno = 0;
  const Outcome outcome = read();
  if (outcome.error != 0) usleep(refusedUs);
  if (!isAfter) {
    counts.reads += outcome.plaintext ? 1 : 0;
    return false;
  }
  counts.begunAfter++;
  if (outcome.plaintext) counts.late++;
  else if (outcome.error == 0) counts.zeros++;
  else counts.refusals[outcome.error]++;
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 8) return 2;
  const std::string directory = arguments[2];
  const std::size_t files = std::stoul(arguments[3]);
  const std::size_t batchFiles = std::stoul(arguments[4]);
  const std::size_t readers = std::stoul(arguments[5]);
  const std::size_t place = std::stoul(arguments[6]);
  const auto way = ways.find(arguments[7]);
  if (way == ways.end()) return 2;
  const Board board(arguments[1], files, files + files / batchFiles * readers);
  struct sigaction action {};
  action.sa_handler = [](int) { siglongjmp(onBus, 1); };
  sigaction(SIGBUS, &action, nullptr);

  Counts counts;
  for (std::size_t first = 0; first < files; first += batchFiles) {
    const std::size_t mine = first / batchFiles * readers + place;
    while (board.stage(first + batchFiles - 1) < shown) usleep(idleUs);
    std::vector<Read> reads;
    for (std::size_t file = first; file < first + batchFiles; file++) {
      reads.push_back(way->second(directory + "/t" + std::to_string(file) + "/key"));
      const std::uint64_t before = counts.reads;
      (void)readOnce(board, file, reads.back(), counts);
      counts.files += counts.reads - before;
    }
    board.say(mine, tried);
    for (std::size_t file = first; file < first + batchFiles; file++) {
      for (int after = 0; after < readsAfter;) after += readOnce(board, file, reads[file - first], counts) ? 1 : 0;
    }
    board.say(mine, done);
  }

  std::string refusals;
  for (const auto& [error, times] : counts.refusals)
    refusals += (refusals.empty() ? "\"" : ",\"") + std::string(strerrorname_np(error)) + "\":" + std::to_string(times);
  printf("{\"way\":\"%s\",\"reads\":%lu,\"files\":%lu,\"begunAfter\":%lu,\"late\":%lu,\"zeros\":%lu,\"refusals\":{%s}}\n",
         way->first.c_str(), counts.reads, counts.files, counts.begunAfter, counts.late, counts.zeros, refusals.c_str());
  return 0;
}
