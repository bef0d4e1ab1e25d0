// The arena as JavaScript sees it: pieces are ArrayBuffers whose memory is the arena's own.
//
// Who holds what: the arena's three functions and each piece's finalizer share the arena, so the mapping lives until the last
// of them is gone. A piece comes back by free(), or when its ArrayBuffer is collected, whichever is first. Node runs the
// finalizer in both cases, after a free() some turns later, when another piece may be at the same place: Arena::release
// knows pieces by serial and ignores the second.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "core_binding.h"

namespace inro {
namespace {

// Arenas to be zeroed together; holds none of them alive.
class ArenaList {
 public:
  ArenaList() = default;
  ArenaList(const ArenaList&) = delete;
  ArenaList& operator=(const ArenaList&) = delete;
  ~ArenaList() { wipe(); }

  void add(const SharedCore& arena) {
    const std::scoped_lock lock(mutex_);
    std::erase_if(arenas_, [](const auto& known) { return known.expired(); });
    arenas_.push_back(arena);
  }

  void wipe() {
    const std::scoped_lock lock(mutex_);
    for (const auto& known : arenas_) {
      if (const auto arena = known.lock()) arena->wipe();
    }
  }

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Core>> arenas_;
};

// Wiped by exit(3): Node runs no clean-up hook and no finalizer at process.exit() or after an uncaught exception.
ArenaList processArenas;

Napi::Value alloc(const Napi::CallbackInfo& info, const SharedCore& arena) {
  const Napi::Env env = info.Env();
  const auto bytes = sizeArgument(info, {"alloc", "bytes", 0});
  if (!bytes) return env.Undefined();
  const auto piece = arena->alloc(*bytes);
  if (!piece) return env.Null();

  return pieceBuffer(env, arena, *piece);
}

Napi::Value free(const Napi::CallbackInfo& info, const SharedCore& arena) {
  const Napi::Env env = info.Env();
  auto buffer = bufferArgument(info, {"free", "piece", 0});
  if (!buffer) return env.Undefined();
  if (buffer->IsDetached()) {
    throwTypeError(env, "free: piece is detached: it was freed or transferred before");
    return env.Undefined();
  }
  const auto id = arena->find(buffer->Data());
  if (!id) {
    throwTypeError(env, "free: piece is not one of this arena's");
    return env.Undefined();
  }
  // Detached first: a buffer that cannot be detached stays the caller's piece.
  buffer->Detach();
  if (env.IsExceptionPending()) return env.Undefined();
  return Napi::Boolean::New(env, arena->release(*id) != Released::late);
}

Napi::Value facts(const Napi::CallbackInfo& info, const SharedCore& arena) {
  const LockedMapping& mapping = arena->mapping();
  const ArenaUse use = arena->use();
  Napi::Object facts = Napi::Object::New(info.Env());
  facts.Set("kind", mapping.kind() == MappingKind::memfdSecret ? "memfd_secret" : "mlock");
  facts.Set("locked", mapping.locked());
  facts.Set("note", mapping.note());
  facts.Set("sizeBytes", static_cast<double>(use.sizeBytes));
  facts.Set("usedBytes", static_cast<double>(use.usedBytes));
  facts.Set("freeBytes", static_cast<double>(use.freeBytes));
  facts.Set("largestBytes", static_cast<double>(use.largestBytes));
  facts.Set("pieces", static_cast<double>(use.pieces));
  return facts;
}

// Functions that own the arena, not methods of a wrapped object: there is no `this` to get wrong.
Napi::Object arenaObject(Napi::Env env, const SharedCore& arena) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("alloc", Napi::Function::New(env, [arena](const Napi::CallbackInfo& i) { return alloc(i, arena); }, "alloc"));
  object.Set("free", Napi::Function::New(env, [arena](const Napi::CallbackInfo& i) { return free(i, arena); }, "free"));
  object.Set("facts", Napi::Function::New(env, [arena](const Napi::CallbackInfo& i) { return facts(i, arena); }, "facts"));
  object.Set("wipe", Napi::Function::New(env, [arena](const Napi::CallbackInfo&) { arena->wipe(); }, "wipe"));
  if (arena->hasNodes()) {
    exportNodes(env, object, arena);
    exportInheritance(env, object, arena);
    exportAccesses(env, object, arena);
    exportCredentialServer(env, object, arena);
  }
  return object;
}

// The arena of another process that left it, from its descriptor, which is taken in any case.
Napi::Value adoptArena(const Napi::CallbackInfo& info, ArenaList& environmentArenas) {
  const Napi::Env env = info.Env();
  const auto fd = sizeArgument(info, {"adoptArena", "descriptor", 0});
  if (!fd) return env.Undefined();
  std::string error;
  auto mapping = LockedMapping::adopt(static_cast<int>(*fd), layoutOf(firstFreeSlot).heapOffset,
                                      layoutOf(maxNodes).heapOffset + Arena::maxBytes, error);
  const SharedCore arena = mapping ? Core::adopt(std::move(*mapping), error) : nullptr;
  if (!arena) {
    Napi::Error::New(env, error).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  environmentArenas.add(arena);
  processArenas.add(arena);
  return arenaObject(env, arena);
}

// Whether adoptArena would understand what is behind the descriptor, which stays the caller's.
Napi::Value inspectArena(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = sizeArgument(info, {"inspectArena", "descriptor", 0});
  if (!fd) return env.Undefined();
  std::string error;
  const auto mapping = LockedMapping::adopt(fcntl(static_cast<int>(*fd), F_DUPFD_CLOEXEC, 0), layoutOf(firstFreeSlot).heapOffset,
                                            layoutOf(maxNodes).heapOffset + Arena::maxBytes, error);
  if (mapping) Image::isImage(mapping->bytes(), error);
  return Napi::String::New(env, error);
}

// True and sets `allowSecret`, or has thrown.
bool kindArgument(const Napi::CallbackInfo& info, bool& allowSecret) {
  const auto kind = textArgument(info, {"createArena", "kind", 1});
  if (!kind) return false;
  if (*kind != "auto" && *kind != "mlock") {
    throwTypeError(info.Env(), "createArena: kind must be 'auto' or 'mlock', not '" + *kind + "'");
    return false;
  }
  allowSecret = *kind == "auto";
  return true;
}

Napi::Value createArena(const Napi::CallbackInfo& info, ArenaList& environmentArenas) {
  const Napi::Env env = info.Env();
  const auto bytes = sizeArgument(info, {"createArena", "bytes", 0});
  if (!bytes) return env.Undefined();
  if (*bytes > Arena::maxBytes) {
    Napi::RangeError::New(env, "createArena: bytes must be at most " + std::to_string(Arena::maxBytes))
        .ThrowAsJavaScriptException();
    return env.Undefined();
  }
  bool allowSecret = false;
  if (!kindArgument(info, allowSecret)) return env.Undefined();

  CoreOptions options{*bytes, allowSecret};
  if (!info[2].IsUndefined()) {
    const auto nodes = sizeArgument(info, {"createArena", "nodes", 2});
    if (!nodes) return env.Undefined();
    if (*nodes > maxNodes) {
      Napi::RangeError::New(env, "createArena: nodes must be at most " + std::to_string(maxNodes)).ThrowAsJavaScriptException();
      return env.Undefined();
    }
    options.nodes = std::max(*nodes, firstFreeSlot);
    options.uid = getuid();
    options.gid = getgid();
  }
  std::string error;
  const SharedCore arena = Core::create(options, error);
  if (!arena) {
    Napi::Error::New(env, "createArena: " + error).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  environmentArenas.add(arena);
  processArenas.add(arena);
  return arenaObject(env, arena);
}

}  // namespace

Napi::Value pieceBuffer(Napi::Env env, const SharedCore& arena, const Arena::Piece& piece) {
  const auto takeBack = [arena, id = piece.id](Napi::Env, void*) { arena->release(id); };
  const auto buffer = Napi::ArrayBuffer::New(env, piece.bytes.data(), piece.bytes.size(), takeBack);
  if (buffer.IsEmpty()) {  // the exception is pending: a runtime that forbids external buffers, or one about to end
    arena->release(piece.id);
    return env.Undefined();
  }
  return buffer;
}

void exportArena(Napi::Env env, Napi::Object exports) {
  // One list for each environment (the main thread, or a worker), wiped when that ends.
  const auto arenas = std::make_shared<ArenaList>();
  env.AddCleanupHook([arenas] { arenas->wipe(); });
  const auto create = [arenas](const Napi::CallbackInfo& info) { return createArena(info, *arenas); };
  exports.Set("createArena", Napi::Function::New(env, create, "createArena"));
  const auto adopt = [arenas](const Napi::CallbackInfo& info) { return adoptArena(info, *arenas); };
  exports.Set("inspectArena", Napi::Function::New<inspectArena>(env, "inspectArena"));
  exports.Set("adoptArena", Napi::Function::New(env, adopt, "adoptArena"));
}

}  // namespace inro
