// Descriptors as JavaScript sees them: numbers. From and to the service manager's store, from and to another process, and a mount's
// own.
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "descriptor_passing.h"
#include "descriptor_store.h"
#include "mount.h"

namespace inro {
namespace {

// Lines for the service manager, and a descriptor or nothing: 0 or an errno.
Napi::Value notify(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto lines = textArgument(info, {"notify", "lines", 0});
  if (!lines) return env.Undefined();
  const int fd = info[1].IsNumber() ? info[1].As<Napi::Number>().Int32Value() : -1;
  return Napi::Number::New(env, notifyServiceManager(*lines, fd));
}

Napi::Value datagram(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"sendDatagram", "path", 0});
  if (!path) return env.Undefined();
  if (!info[1].IsTypedArray()) {
    throwTypeError(env, "sendDatagram: bytes must be a Uint8Array");
    return env.Undefined();
  }
  const auto bytes = info[1].As<Napi::Uint8Array>();
  return Napi::Number::New(env, sendDatagram(*path, {reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()}));
}

Napi::Value await(const Napi::CallbackInfo& info) {
  const auto ms = sizeArgument(info, {"awaitServiceManager", "ms", 0});
  if (!ms) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), awaitServiceManager(static_cast<int>(*ms)));
}

Napi::Value takeStoredDescriptors(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto stored = takeStored();
  Napi::Array all = Napi::Array::New(env, stored.size());
  for (std::size_t i = 0; i < stored.size(); i++) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", stored[i].name);
    one.Set("fd", stored[i].fd);
    all.Set(static_cast<std::uint32_t>(i), one);
  }
  return all;
}

// Mounts and serves nothing: the descriptor is for another process.
Napi::Value mountDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"mountDevice", "path", 0});
  if (!path) return env.Undefined();
  const Mounted mounted = mountDirectly(*path);
  if (mounted.fd >= 0) return Napi::Number::New(env, mounted.fd);
  Napi::Error error = Napi::Error::New(env, mounted.step);
  error.Set("errno", Napi::Number::New(env, mounted.error));
  error.Set("step", Napi::String::New(env, mounted.step));
  error.Set("said", Napi::String::New(env, mounted.said));
  error.ThrowAsJavaScriptException();
  return env.Undefined();
}

class PassWorker final : public Napi::AsyncWorker {
 public:
  PassWorker(Napi::Env env, std::string path, std::vector<int> descriptors, std::uint64_t ms)
      : Napi::AsyncWorker(env, "inro pass"), deferred_(env), path_(std::move(path)), descriptors_(std::move(descriptors)), ms_(ms) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { result_ = passDescriptors(path_, descriptors_, ms_); }
  void OnOK() override { deferred_.Resolve(Napi::String::New(Env(), result_)); }

 private:
  Napi::Promise::Deferred deferred_;
  std::string path_;
  std::vector<int> descriptors_;
  std::uint64_t ms_;
  std::string result_;
};

Napi::Value pass(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"passDescriptors", "path", 0});
  if (!path) return env.Undefined();
  const auto ms = sizeArgument(info, {"passDescriptors", "ms", 2});
  if (!ms) return env.Undefined();
  std::vector<int> descriptors;
  if (info[1].IsArray()) {
    const auto list = info[1].As<Napi::Array>();
    for (std::uint32_t i = 0; i < list.Length(); i++) descriptors.push_back(list.Get(i).ToNumber().Int32Value());
  }
  auto* const worker = new PassWorker(env, *path, std::move(descriptors), *ms);
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

class ReceiveWorker final : public Napi::AsyncWorker {
 public:
  ReceiveWorker(Napi::Env env, std::shared_ptr<DescriptorReceiver> receiver, std::uint64_t ms)
      : Napi::AsyncWorker(env, "inro receive"), deferred_(env), receiver_(std::move(receiver)), ms_(ms) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { descriptors_ = receiver_->receive(ms_, error_); }
  void OnOK() override {
    const Napi::Env env = Env();
    if (descriptors_.empty()) return deferred_.Reject(Napi::Error::New(env, error_).Value());
    Napi::Array all = Napi::Array::New(env, descriptors_.size());
    for (std::size_t i = 0; i < descriptors_.size(); i++) all.Set(static_cast<std::uint32_t>(i), descriptors_[i]);
    deferred_.Resolve(all);
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<DescriptorReceiver> receiver_;
  std::uint64_t ms_;
  std::vector<int> descriptors_;
  std::string error_;
};

// Listens at once; what comes is the promise's. The socket goes with it.
Napi::Value receive(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"receiveDescriptors", "path", 0});
  if (!path) return env.Undefined();
  const auto ms = sizeArgument(info, {"receiveDescriptors", "ms", 1});
  if (!ms) return env.Undefined();
  std::string error;
  auto receiver = DescriptorReceiver::listen(*path, error);
  if (!receiver) {
    Napi::Error::New(env, error).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  auto* const worker = new ReceiveWorker(env, std::make_shared<DescriptorReceiver>(std::move(*receiver)), *ms);
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace

void exportDescriptors(Napi::Env env, Napi::Object exports) {
  exports.Set("notifyServiceManager", Napi::Function::New<notify>(env, "notifyServiceManager"));
  exports.Set("sendDatagram", Napi::Function::New<datagram>(env, "sendDatagram"));
  exports.Set("awaitServiceManager", Napi::Function::New<await>(env, "awaitServiceManager"));
  exports.Set("takeStoredDescriptors", Napi::Function::New<takeStoredDescriptors>(env, "takeStoredDescriptors"));
  exports.Set("mountDevice", Napi::Function::New<mountDevice>(env, "mountDevice"));
  exports.Set("passDescriptors", Napi::Function::New<pass>(env, "passDescriptors"));
  exports.Set("receiveDescriptors", Napi::Function::New<receive>(env, "receiveDescriptors"));
}

}  // namespace inro
