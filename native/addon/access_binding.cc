// Who accessed what, and who a process is, as JavaScript sees them.
#include "arguments.h"
#include "bindings.h"
#include "caller.h"
#include "core_binding.h"

namespace inro {
namespace {

Napi::Value numberOf(Napi::Env env, std::uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Object accessOf(Napi::Env env, const CollectedAccess& access) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("atMs", numberOf(env, access.atMs));
  object.Set("node", numberOf(env, access.node));
  object.Set("outcome", static_cast<std::uint32_t>(access.outcome));
  object.Set("uid", access.uid);
  object.Set("gid", access.gid);
  object.Set("thread", access.caller.thread);
  object.Set("process", access.caller.process);
  object.Set("startTicks", numberOf(env, access.caller.startTicks));
  object.Set("cgroup", numberOf(env, access.caller.cgroup));
  object.Set("name", static_cast<const char*>(access.caller.name));
  return object;
}

Napi::Object countOf(Napi::Env env, const CollectedCount& count) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("node", numberOf(env, count.node));
  object.Set("cgroup", numberOf(env, count.cgroup));
  if (count.uid != notAttributed) object.Set("uid", count.uid);
  object.Set("outcome", static_cast<std::uint32_t>(count.outcome));
  object.Set("count", numberOf(env, count.count));
  object.Set("lastMs", numberOf(env, count.lastMs));
  return object;
}

Napi::Value collect(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const Collected all = core->collectAccesses();
  if (all.counts.empty() && all.accesses.empty() && all.dropped == 0) return env.Null();
  Napi::Object object = Napi::Object::New(env);
  Napi::Array accesses = Napi::Array::New(env, all.accesses.size());
  for (std::uint32_t i = 0; i < all.accesses.size(); i++) accesses.Set(i, accessOf(env, all.accesses[i]));
  Napi::Array counts = Napi::Array::New(env, all.counts.size());
  for (std::uint32_t i = 0; i < all.counts.size(); i++) counts.Set(i, countOf(env, all.counts[i]));
  Napi::Array cgroups = Napi::Array::New(env, all.cgroups.size());
  std::uint32_t at = 0;
  for (const auto& [id, path] : all.cgroups) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0U, numberOf(env, id));
    pair.Set(1U, Napi::String::New(env, path));
    cgroups.Set(at++, pair);
  }
  object.Set("accesses", accesses);
  object.Set("counts", counts);
  object.Set("dropped", numberOf(env, all.dropped));
  object.Set("cgroups", cgroups);
  return object;
}

// Who a process is now, or null when there is none.
Napi::Value processOf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pid = sizeArgument(info, {"processOf", "pid", 0});
  if (!pid) return env.Undefined();
  static KernelCallers callers;
  const Caller caller = callers.identify(static_cast<std::uint32_t>(*pid));
  if (caller.process == 0) return env.Null();
  Napi::Object object = Napi::Object::New(env);
  object.Set("process", caller.process);
  object.Set("startTicks", numberOf(env, caller.startTicks));
  object.Set("name", static_cast<const char*>(caller.name));
  const std::string path = callers.cgroupPath(caller.thread);
  const bool isKnown = caller.cgroup != 0 && callers.cgroupAt(path) == caller.cgroup;
  object.Set("cgroup", numberOf(env, isKnown ? caller.cgroup : 0));
  object.Set("cgroupPath", isKnown ? path : "");
  return object;
}

Napi::Value signalTo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pid = sizeArgument(info, {"signalProcess", "pid", 0});
  const auto startTicks = sizeArgument(info, {"signalProcess", "startTicks", 1});
  const auto signal = sizeArgument(info, {"signalProcess", "signal", 2});
  if (!pid || !startTicks || !signal) return env.Undefined();
  return numberOf(env, static_cast<std::uint64_t>(signalProcess(static_cast<std::uint32_t>(*pid), *startTicks, static_cast<int>(*signal))));
}

}  // namespace

void exportAccesses(Napi::Env env, Napi::Object arena, const SharedCore& core) {
  arena.Set("collectAccesses", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return collect(i, core); }, "collectAccesses"));
}

void exportProcesses(Napi::Env env, Napi::Object exports) {
  exports.Set("processOf", Napi::Function::New<processOf>(env, "processOf"));
  exports.Set("signalProcess", Napi::Function::New<signalTo>(env, "signalProcess"));
}

}  // namespace inro
