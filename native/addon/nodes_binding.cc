// Nodes and mounts as JavaScript sees them: steps come in as plain objects (NativeStep in src/system/addon.ts), mounting and
// the self-test run beside the event loop, because they wait for answers that other threads give.
#include <errno.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "core_binding.h"
#include "mount.h"
#include "server.h"

namespace inro {
namespace {

constexpr std::uint64_t readyMs = 10'000;

// ---- a step, from JavaScript

std::uint64_t number(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) return 0;
  const double d = value.As<Napi::Number>().DoubleValue();
  return d >= 0 && d <= 9007199254740991.0 ? static_cast<std::uint64_t>(d) : 0;
}

// ms; what no double says exactly is as good as the largest.
std::int64_t shift(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) return 0;
  const double d = value.As<Napi::Number>().DoubleValue();
  return std::isnan(d) ? 0 : static_cast<std::int64_t>(std::clamp(d, -9007199254740991.0, 9007199254740991.0));
}

std::string text(const Napi::Value& value) { return value.IsString() ? value.As<Napi::String>().Utf8Value() : ""; }

std::string bytesOf(const Napi::Value& value) {
  if (!value.IsTypedArray()) return "";
  const auto bytes = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()};
}

std::vector<std::uint64_t> numbers(const Napi::Value& value) {
  std::vector<std::uint64_t> all;
  if (!value.IsArray()) return all;
  const auto array = value.As<Napi::Array>();
  for (std::uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value each = array.Get(i);
    all.push_back(each.IsNumber() ? static_cast<std::uint64_t>(each.As<Napi::Number>().Int64Value()) : 0);
  }
  return all;
}

// Calls `each` with every object of the list under `name`.
template <typename Each>
void forEach(const Napi::Object& object, const char* name, Each each) {
  const Napi::Value list = object.Get(name);
  if (!list.IsArray()) return;
  const auto array = list.As<Napi::Array>();
  for (std::uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value item = array.Get(i);
    if (item.IsObject()) each(item.As<Napi::Object>());
  }
}

std::vector<std::pair<std::string, std::uint64_t>> entries(const Napi::Value& value) {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  if (!value.IsArray()) return all;
  const auto array = value.As<Napi::Array>();
  for (std::uint32_t i = 0; i < array.Length(); i++) {
    const auto pair = array.Get(i).As<Napi::Array>();
    all.emplace_back(text(pair.Get(std::uint32_t{0})), static_cast<std::uint64_t>(pair.Get(1U).ToNumber().Int64Value()));
  }
  return all;
}

std::optional<Step> stepFrom(const Napi::Object& object, Core& core, std::string& error) {
  Step step;
  forEach(object, "made", [&](const Napi::Object& it) {
    NewNode node{};
    const std::string kind = text(it.Get("kind"));
    node.kind = kind == "file" ? NodeKind::file : kind == "link" ? NodeKind::link : NodeKind::directory;
    node.id = number(it, "id");
    node.mode = static_cast<std::uint32_t>(number(it, "mode"));
    node.uid = static_cast<std::uint32_t>(number(it, "uid"));
    node.gid = static_cast<std::uint32_t>(number(it, "gid"));
    node.parent = number(it, "parent");
    node.modifiedMs = number(it, "modifiedMs");
    node.skip = number(it, "skip");
    node.size = number(it, "size");
    node.mappable = it.Get("mappable").ToBoolean();
    node.text = text(it.Get("text"));
    node.note = bytesOf(it.Get("note"));
    node.kept = it.Get("kept").ToBoolean();
    node.probe = it.Get("probe").ToBoolean();
    node.gated = number(it, "gated");
    node.leaseShiftMs = shift(it, "leaseShiftMs");
    if (node.kind == NodeKind::file) {
      const Napi::Value piece = it.Get("piece");
      const auto id = piece.IsArrayBuffer() ? core.find(piece.As<Napi::ArrayBuffer>().Data()) : std::nullopt;
      if (!id) error = "commit: a file's value is not a piece of this arena";
      else node.piece = *id;
    }
    step.made.push_back(std::move(node));
  });
  forEach(object, "filled", [&](const Napi::Object& it) {
    step.filled.push_back({number(it, "directory"), entries(it.Get("entries"))});
  });
  forEach(object, "removed", [&](const Napi::Object& it) {
    step.removed.emplace_back(number(it, "directory"), text(it.Get("name")));
  });
  forEach(object, "gatings", [&](const Napi::Object& it) {
    Gating gating{number(it, "directory"), it.Get("open").ToBoolean(), {}, bytesOf(it.Get("note"))};
    forEach(it, "readers", [&](const Napi::Object& reader) {
      gating.readers.push_back({number(reader, "cgroup"), text(reader.Get("path"))});
    });
    step.gatings.push_back(std::move(gating));
  });
  step.superseded = numbers(object.Get("superseded"));
  step.readableUntilMs = number(object, "readableUntilMs");
  step.gone = numbers(object.Get("gone"));
  step.changedMs = number(object, "changedMs");
  if (!error.empty()) return std::nullopt;
  return step;
}

Napi::Value commit(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) {
    throwTypeError(env, "commit: step must be an object");
    return env.Undefined();
  }
  std::string error;
  const auto step = stepFrom(info[0].As<Napi::Object>(), *core, error);
  if (env.IsExceptionPending()) return env.Undefined();
  if (!step) {
    throwTypeError(env, error);
    return env.Undefined();
  }
  // Words for what did not fit, or nothing.
  return core->commit(*step, error) ? Napi::String::New(env, "") : Napi::String::New(env, error);
}

// ---- a mounted server

using SharedServer = std::shared_ptr<std::unique_ptr<Server>>;

Napi::Value serverFacts(const Napi::CallbackInfo& info, const SharedServer& server) {
  Napi::Object object = Napi::Object::New(info.Env());
  const Server::Facts facts = *server ? (*server)->facts() : Server::Facts{};
  object.Set("minor", facts.negotiated.minor);
  object.Set("requests", static_cast<double>(facts.requests));
  object.Set("malformed", static_cast<double>(facts.malformed));
  object.Set("buffersLocked", facts.buffersLocked);
  object.Set("connected", facts.connected);
  object.Set("ended", facts.ended);
  object.Set("droppedNames", static_cast<double>(facts.notifier.droppedNames));
  object.Set("pendingScrubs", static_cast<double>(facts.notifier.pendingScrubs));
  object.Set("lateScrubs", static_cast<double>(facts.notifier.lateScrubs));
  return object;
}

Napi::Object serverObject(Napi::Env env, const SharedServer& server, const SharedCore& core, int device) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("device", device);
  object.Set("facts", Napi::Function::New(env, [server](const Napi::CallbackInfo& i) { return serverFacts(i, server); }, "facts"));
  object.Set("stop", Napi::Function::New(env, [server, core](const Napi::CallbackInfo&) { server->reset(); }, "stop"));
  return object;
}

class MountWorker final : public Napi::AsyncWorker {
 public:
  struct Options {
    int device;  // a mounted one; -1: mount
    bool isNew;  // it was mounted for us, and nobody has served it yet
    std::string path;
    std::string how;
    std::size_t workers;
    std::uint32_t newestMinor;
  };
  MountWorker(Napi::Env env, SharedCore core, Options options)
      : Napi::AsyncWorker(env, "inro mount"), deferred_(env), core_(std::move(core)), options_(std::move(options)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    if (options_.device >= 0) {
      mounted_.fd = options_.device;
    } else {
      mounted_ = options_.how == "direct" ? mountDirectly(options_.path) : mountByHelper(options_.path, options_.how == "helper, others");
    }
    if (mounted_.fd < 0) return;
    if (options_.device < 0 || options_.isNew) core_->forgetConnection();
    std::string error;
    server_ = Server::start(*core_, std::make_unique<DeviceChannel>(mounted_.fd), options_.workers, options_.newestMinor, error);
    const bool isInherited = options_.device >= 0 && !options_.isNew;
    if (!server_ || !server_->waitReady(readyMs, error) || (isInherited && !server_->takeOver(error))) {
      server_.reset();
      mounted_ = {-1, EPROTO, "INIT", error};
    }
  }

  void OnOK() override {
    const Napi::Env env = Env();
    if (server_) {
      // The core outlives the server: the functions hold both, the server is reset first.
      const SharedServer shared(new std::unique_ptr<Server>(std::move(server_)), [core = core_](std::unique_ptr<Server>* s) { delete s; });
      return deferred_.Resolve(serverObject(env, shared, core_, mounted_.fd));
    }
    Napi::Error error = Napi::Error::New(env, mounted_.step);
    error.Set("errno", Napi::Number::New(env, mounted_.error));
    error.Set("step", Napi::String::New(env, mounted_.step));
    error.Set("said", Napi::String::New(env, mounted_.said));
    deferred_.Reject(error.Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  SharedCore core_;
  Options options_;
  Mounted mounted_;
  std::unique_ptr<Server> server_;
};

Napi::Value mount(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"mount", "path", 0});
  if (!path) return env.Undefined();
  const auto how = textArgument(info, {"mount", "how", 1});
  if (!how) return env.Undefined();
  const auto workers = sizeArgument(info, {"mount", "workers", 2});
  if (!workers) return env.Undefined();
  const auto minor = sizeArgument(info, {"mount", "newestMinor", 3});
  if (!minor) return env.Undefined();
  auto* const worker = new MountWorker(env, core, {-1, true, *path, *how, *workers, static_cast<std::uint32_t>(*minor)});
  const Napi::Promise promise = worker->promise();
  worker->Queue();  // deletes itself when done
  return promise;
}

// A device that is mounted already: `isNew` when nobody has served it yet. Takes the descriptor.
Napi::Value serve(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const auto device = sizeArgument(info, {"serve", "device", 0});
  if (!device) return env.Undefined();
  const auto workers = sizeArgument(info, {"serve", "workers", 2});
  if (!workers) return env.Undefined();
  const auto minor = sizeArgument(info, {"serve", "newestMinor", 3});
  if (!minor) return env.Undefined();
  auto* const worker = new MountWorker(
      env, core, {static_cast<int>(*device), info[1].ToBoolean(), "", "", *workers, static_cast<std::uint32_t>(*minor)});
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

class SelfTestWorker final : public Napi::AsyncWorker {
 public:
  SelfTestWorker(Napi::Env env, std::string path, std::string content)
      : Napi::AsyncWorker(env, "inro self-test"), deferred_(env), path_(std::move(path)), content_(std::move(content)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { result_ = strictSelfTest(path_, std::as_bytes(std::span(content_))); }
  void OnOK() override { deferred_.Resolve(Napi::String::New(Env(), result_)); }

 private:
  Napi::Promise::Deferred deferred_;
  std::string path_;
  std::string content_;
  std::string result_;
};

Napi::Value selfTest(const Napi::CallbackInfo& info) {
  const auto path = textArgument(info, {"strictSelfTest", "path", 0});
  if (!path) return info.Env().Undefined();
  const auto content = textArgument(info, {"strictSelfTest", "content", 1});
  if (!content) return info.Env().Undefined();
  auto* const worker = new SelfTestWorker(info.Env(), *path, *content);
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace

void exportNodes(Napi::Env env, Napi::Object arena, const SharedCore& core) {
  arena.Set("commit", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return commit(i, core); }, "commit"));
  const auto reserve = [core](const Napi::CallbackInfo& i) -> Napi::Value {
    const auto id = core->reserve();
    if (!id) return i.Env().Null();
    return Napi::Number::New(i.Env(), static_cast<double>(*id));
  };
  arena.Set("reserveNode", Napi::Function::New(env, reserve, "reserveNode"));
  const auto giveBack = [core](const Napi::CallbackInfo& i) {
    if (i[0].IsNumber()) core->giveBack(static_cast<std::uint64_t>(i[0].As<Napi::Number>().Int64Value()));
  };
  arena.Set("giveBackNode", Napi::Function::New(env, giveBack, "giveBackNode"));
  const auto serveUntil = [core](const Napi::CallbackInfo& i) {
    const double ms = i[0].ToNumber().DoubleValue();
    core->serveUntil(ms > 0 ? static_cast<std::uint64_t>(std::min(ms, 9007199254740991.0)) : 0);
  };
  arena.Set("serveUntil", Napi::Function::New(env, serveUntil, "serveUntil"));
  arena.Set("mount", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return mount(i, core); }, "mount"));
  arena.Set("serve", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return serve(i, core); }, "serve"));
  const auto nodesUsed = [core](const Napi::CallbackInfo& i) {
    return Napi::Number::New(i.Env(), static_cast<double>(core->nodesUsed()));
  };
  arena.Set("nodesUsed", Napi::Function::New(env, nodesUsed, "nodesUsed"));
}

void exportSelfTest(Napi::Env env, Napi::Object exports) {
  exports.Set("strictSelfTest", Napi::Function::New<selfTest>(env, "strictSelfTest"));
}

}  // namespace inro
