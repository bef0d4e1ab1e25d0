// The small system calls that Node lacks. They return what the kernel says; words are for src/system.
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "lock_limit.h"

namespace inro {
namespace {

constexpr std::size_t firstNameBytes = 1024;
constexpr std::size_t maxNameBytes = std::size_t{1} << 20;  // a group with some 50,000 members
constexpr int heapPattern = 0xA5;
constexpr std::size_t maxLockedBytes = std::size_t{1} << 31;

Napi::Value unmount(const Napi::CallbackInfo& info) {
  const auto path = textArgument(info, {"unmount", "path", 0});
  if (!path) return info.Env().Undefined();
  const int error = umount2(path->c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : errno;
  return Napi::Number::New(info.Env(), error);
}

Napi::Value closeOnExec(const Napi::CallbackInfo& info) {
  const Napi::Value fd = info[0];
  if (!fd.IsNumber()) {
    throwTypeError(info.Env(), "closeOnExec: fd is not a number");
    return info.Env().Undefined();
  }
  const int error = fcntl(fd.As<Napi::Number>().Int32Value(), F_SETFD, FD_CLOEXEC) == 0 ? 0 : errno;
  return Napi::Number::New(info.Env(), error);
}

// A JavaScript array of strings; nothing after it has thrown.
std::optional<std::vector<std::string>> textsArgument(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsArray()) {
    throwTypeError(info.Env(), "replaceProcess: argument is not an array of strings");
    return std::nullopt;
  }
  const auto array = info[index].As<Napi::Array>();
  std::vector<std::string> texts;
  for (std::uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value text = array.Get(i);
    if (!text.IsString()) {
      throwTypeError(info.Env(), "replaceProcess: argument is not an array of strings");
      return std::nullopt;
    }
    texts.push_back(text.As<Napi::String>().Utf8Value());
  }
  return texts;
}

std::vector<char*> pointersTo(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

Napi::Value replaceProcess(const Napi::CallbackInfo& info) {
  const auto path = textArgument(info, {"replaceProcess", "path", 0});
  if (!path) return info.Env().Undefined();
  auto arguments = textsArgument(info, 1);
  if (!arguments) return info.Env().Undefined();
  auto environment = textsArgument(info, 2);
  if (!environment) return info.Env().Undefined();
  const int last = info[3].IsNumber() ? info[3].As<Napi::Number>().Int32Value() : STDERR_FILENO;
  // What Node changed at its start: descriptors are close-on-exec, signals ignored, the soft limit of open files raised.
  for (int fd = 0; fd <= last; fd++) fcntl(fd, F_SETFD, 0);
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_DFL);
  rlimit raised{};
  rlimit parents{};
  getrlimit(RLIMIT_NOFILE, &raised);
  if (prlimit(getppid(), RLIMIT_NOFILE, nullptr, &parents) == 0) {
    const rlimit own{std::min(parents.rlim_cur, raised.rlim_max), raised.rlim_max};
    setrlimit(RLIMIT_NOFILE, &own);
  }
  execve(path->c_str(), pointersTo(*arguments).data(), pointersTo(*environment).data());
  const int error = errno;
  for (int fd = 0; fd <= last; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  setrlimit(RLIMIT_NOFILE, &raised);
  return Napi::Number::New(info.Env(), error);
}

int openAndLock(const char* path) {
  int fd;
  do {
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  int locked;
  do {
    locked = flock(fd, LOCK_EX | LOCK_NB);
  } while (locked != 0 && errno == EINTR);
  if (locked == 0) return fd;  // open for the life of the process: closing it would give the lock away
  const int error = errno;
  close(fd);
  return -error;
}

Napi::Value lockFile(const Napi::CallbackInfo& info) {
  const auto path = textArgument(info, {"lockFile", "path", 0});
  if (!path) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), openAndLock(path->c_str()));
}

// getpwnam(3) lists these beside 0 as ways in which a C library says "no such name".
bool meansUnknown(int error) {
  return error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM;
}

// Asks `lookup` (getpwnam_r or getgrnam_r) with a buffer that doubles until the entry fits.
template <typename Entry, typename Lookup, typename Id>
Napi::Value idByName(const Napi::CallbackInfo& info, const char* function, Lookup lookup, Id idOf) {
  const auto name = textArgument(info, {function, "name", 0});
  if (!name) return info.Env().Undefined();
  int error = ERANGE;
  for (std::size_t size = firstNameBytes; error == ERANGE && size <= maxNameBytes; size *= 2) {
    std::vector<char> text(size);
    Entry entry{};
    Entry* found = nullptr;
    do {
      error = lookup(name->c_str(), &entry, text.data(), text.size(), &found);
    } while (error == EINTR);
    if (found != nullptr) return Napi::Number::New(info.Env(), static_cast<double>(idOf(*found)));
  }
  if (meansUnknown(error)) return Napi::Number::New(info.Env(), -1);
  // Not "-1": the host may well know the name, it only cannot say now (no descriptor left, a directory service is down).
  Napi::Error::New(info.Env(), std::string(function) + " " + *name + ": " + std::generic_category().message(error))
      .ThrowAsJavaScriptException();
  return info.Env().Undefined();
}

Napi::Value userId(const Napi::CallbackInfo& info) {
  return idByName<passwd>(info, "userId", getpwnam_r, [](const passwd& entry) { return entry.pw_uid; });
}

Napi::Value groupId(const Napi::CallbackInfo& info) {
  return idByName<group>(info, "groupId", getgrnam_r, [](const group& entry) { return entry.gr_gid; });
}

Napi::Value boottimeMs(const Napi::CallbackInfo& info) {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);  // fails only for a bad clock or address
  return Napi::Number::New(info.Env(), static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6);
}

Napi::Value forbidDumps(const Napi::CallbackInfo& info) {
  const rlimit none{0, 0};
  int error = 0;
  // Both are tried even when one is refused.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) error = errno;
  if (setrlimit(RLIMIT_CORE, &none) != 0) error = errno;
  return Napi::Number::New(info.Env(), error);
}

Napi::Value lockable(const Napi::CallbackInfo& info) {
  const auto bytes = sizeArgument(info, {"lockable", "bytes", 0});
  if (!bytes) return info.Env().Undefined();
  if (*bytes > maxLockedBytes) {
    Napi::RangeError::New(info.Env(), "lockable: bytes must be at most " + std::to_string(maxLockedBytes))
        .ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  const LockRoom room = lockRoom(*bytes);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("bytes", static_cast<double>(room.bytes));
  object.Set("limitBytes", room.limitBytes == noLockLimit ? std::numeric_limits<double>::infinity()
                                                          : static_cast<double>(room.limitBytes));
  return object;
}

Napi::Value overwriteFreedHeap(const Napi::CallbackInfo& info) {
#ifdef M_PERTURB
  return Napi::Boolean::New(info.Env(), mallopt(M_PERTURB, heapPattern) == 1);
#else
  (void)heapPattern;
  return Napi::Boolean::New(info.Env(), false);
#endif
}

}  // namespace

void exportSyscalls(Napi::Env env, Napi::Object exports) {
  exports.Set("unmount", Napi::Function::New<unmount>(env, "unmount"));
  exports.Set("closeOnExec", Napi::Function::New<closeOnExec>(env, "closeOnExec"));
  exports.Set("replaceProcess", Napi::Function::New<replaceProcess>(env, "replaceProcess"));
  exports.Set("lockFile", Napi::Function::New<lockFile>(env, "lockFile"));
  exports.Set("userId", Napi::Function::New<userId>(env, "userId"));
  exports.Set("groupId", Napi::Function::New<groupId>(env, "groupId"));
  exports.Set("boottimeMs", Napi::Function::New<boottimeMs>(env, "boottimeMs"));
  exports.Set("forbidDumps", Napi::Function::New<forbidDumps>(env, "forbidDumps"));
  exports.Set("lockable", Napi::Function::New<lockable>(env, "lockable"));
  exports.Set("overwriteFreedHeap", Napi::Function::New<overwriteFreedHeap>(env, "overwriteFreedHeap"));
}

}  // namespace inro
