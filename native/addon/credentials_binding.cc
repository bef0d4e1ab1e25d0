// Credentials for units of systemd as JavaScript sees them: who asks comes out, a node or a refusal goes in, and no value ever
// passes through here.
#include <fcntl.h>

#include <memory>
#include <string>
#include <utility>

#include "arguments.h"
#include "bindings.h"
#include "core_binding.h"
#include "credentials.h"

namespace inro {
namespace {

// The functions share it; the server is gone after stop(), and goes before the core.
struct Serving {
  SharedCore core;
  std::unique_ptr<CredentialServer> server;
};
using SharedServing = std::shared_ptr<Serving>;

Napi::Value accept(const Napi::CallbackInfo& info, const SharedServing& serving) {
  const Napi::Env env = info.Env();
  const auto request = serving->server ? serving->server->accept() : std::nullopt;
  if (!request) return env.Null();
  Napi::Object object = Napi::Object::New(env);
  object.Set("connection", static_cast<double>(request->connection));
  object.Set("uid", request->uid);
  object.Set("gid", request->gid);
  object.Set("pid", request->pid);
  object.Set("trusted", request->trusted);
  object.Set("unit", request->name ? request->name->unit : "");
  object.Set("id", request->name ? request->name->id : "");
  return object;
}

Napi::Value give(const Napi::CallbackInfo& info, const SharedServing& serving) {
  const Napi::Env env = info.Env();
  const auto connection = sizeArgument(info, {"give", "connection", 0});
  if (!connection) return env.Undefined();
  const auto node = sizeArgument(info, {"give", "node", 1});
  if (!node) return env.Undefined();
  const AccessOutcome outcome = serving->server ? serving->server->give(*connection, *node) : AccessOutcome::wiped;
  return Napi::Number::New(env, static_cast<std::uint32_t>(outcome));
}

Napi::Value refuse(const Napi::CallbackInfo& info, const SharedServing& serving) {
  const Napi::Env env = info.Env();
  const auto connection = sizeArgument(info, {"refuse", "connection", 0});
  if (!connection) return env.Undefined();
  const auto words = textArgument(info, {"refuse", "words", 1});
  if (!words) return env.Undefined();
  if (serving->server) serving->server->refuse(*connection, *words);
  return env.Undefined();
}

Napi::Value facts(const Napi::CallbackInfo& info, const SharedServing& serving) {
  const CredentialServer::Facts facts = serving->server ? serving->server->facts() : CredentialServer::Facts{};
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("connections", static_cast<double>(facts.connections));
  object.Set("cutOff", static_cast<double>(facts.cutOff));
  return object;
}

// Takes the listening descriptor; `onWaiting` is called on the event loop when somebody waits.
Napi::Value serveCredentials(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const auto listening = sizeArgument(info, {"serveCredentials", "descriptor", 0});
  if (!listening) return env.Undefined();
  if (!info[1].IsFunction()) {
    throwTypeError(env, "serveCredentials: onWaiting must be a function");
    return env.Undefined();
  }
  auto call = Napi::ThreadSafeFunction::New(env, info[1].As<Napi::Function>(), "inro credentials", 0, 1);
  call.Unref(env);  // keeps no process alive
  std::string error;
  auto server = CredentialServer::start(
      *core, static_cast<int>(*listening), [call] { (void)call.NonBlockingCall(); }, error);
  if (!server) {
    call.Release();
    Napi::Error::New(env, error).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  const auto serving = std::make_shared<Serving>(Serving{core, std::move(server)});
  const auto function = [&](const char* name, auto each) {
    return Napi::Function::New(env, [serving, each](const Napi::CallbackInfo& i) { return each(i, serving); }, name);
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("accept", function("accept", accept));
  object.Set("give", function("give", give));
  object.Set("refuse", function("refuse", refuse));
  object.Set("facts", function("facts", facts));
  const auto stop = [serving, call](const Napi::CallbackInfo&) mutable {
    if (!serving->server) return;
    serving->server.reset();
    call.Release();
  };
  object.Set("stop", Napi::Function::New(env, stop, "stop"));
  return object;
}

Napi::Value listenFor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto path = textArgument(info, {"listenForCredentials", "path", 0});
  if (!path) return env.Undefined();
  std::string error;
  const int fd = listenForCredentials(*path, error);
  if (fd >= 0) return Napi::Number::New(env, fd);
  Napi::Error::New(env, error).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value listensFor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = sizeArgument(info, {"listensForCredentials", "descriptor", 0});
  if (!fd) return env.Undefined();
  const auto path = textArgument(info, {"listensForCredentials", "path", 1});
  if (!path) return env.Undefined();
  return Napi::Boolean::New(env, listensForCredentials(static_cast<int>(*fd), *path));
}

}  // namespace

void exportCredentialServer(Napi::Env env, Napi::Object arena, const SharedCore& core) {
  const auto serve = [core](const Napi::CallbackInfo& i) { return serveCredentials(i, core); };
  arena.Set("serveCredentials", Napi::Function::New(env, serve, "serveCredentials"));
}

void exportCredentials(Napi::Env env, Napi::Object exports) {
  exports.Set("listenForCredentials", Napi::Function::New<listenFor>(env, "listenForCredentials"));
  exports.Set("listensForCredentials", Napi::Function::New<listensFor>(env, "listensForCredentials"));
}

}  // namespace inro
