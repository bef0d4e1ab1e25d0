// What a process leaves to the next one, as JavaScript sees it: the nodes of an image with what was noted beside each, the values
// behind the files, and the descriptors.
#include <shared_mutex>
#include <string_view>

#include "arguments.h"
#include "core_binding.h"

namespace inro {
namespace {

Napi::Value numberOf(Napi::Env env, std::uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Array entriesOf(Napi::Env env, const Image& image, const NodeRecord& directory) {
  Napi::Array entries = Napi::Array::New(env);
  DirectoryBlock* const block = image.block(directory);
  if (block == nullptr) return entries;
  DirectoryEntry* entry = Image::firstEntry(block);
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
    if (entry->node == 0) continue;
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0U, Napi::String::New(env, entry->name(), entry->nameBytes));
    pair.Set(1U, numberOf(env, entry->node));
    entries.Set(count++, pair);
  }
  return entries;
}

Napi::Object gateOf(Napi::Env env, const Image& image, const NodeRecord& directory) {
  Napi::Object object = Napi::Object::New(env);
  const std::string_view note = image.gateNote(directory);
  object.Set("note", Napi::Buffer<char>::Copy(env, note.data(), note.size()));
  Napi::Array readers = Napi::Array::New(env);
  const GateBlock* const block = image.gate(directory);
  if (block != nullptr) {
    const GateEntry* entry = Image::firstEntry(block);
    for (std::uint32_t i = 0; i < block->count; i++, entry = Image::nextEntry(entry)) {
      Napi::Object reader = Napi::Object::New(env);
      reader.Set("cgroup", numberOf(env, entry->cgroup));
      reader.Set("path", Napi::String::New(env, entry->path().data(), entry->path().size()));
      readers.Set(i, reader);
    }
  }
  const bool isOpen = directory.gate == gateOpen || (block != nullptr && block->open != 0);
  object.Set("readers", isOpen ? Napi::String::New(env, "any").As<Napi::Value>() : readers);
  return object;
}

Napi::Object nodeOf(Napi::Env env, const Image& image, const NodeRecord& node) {
  Napi::Object object = Napi::Object::New(env);
  const auto kind = static_cast<NodeKind>(node.kind);
  object.Set("kind", kind == NodeKind::file ? "file" : kind == NodeKind::link ? "link" : "directory");
  object.Set("id", numberOf(env, node.id));
  object.Set("mode", node.mode & 07777U);
  object.Set("uid", node.uid);
  object.Set("gid", node.gid);
  object.Set("parent", numberOf(env, node.parent));
  object.Set("modifiedMs", numberOf(env, node.modifiedMs));
  object.Set("size", numberOf(env, node.size));
  const std::string_view note = image.note(node);
  object.Set("note", Napi::Buffer<char>::Copy(env, note.data(), note.size()));
  if (kind == NodeKind::directory) {
    object.Set("entries", entriesOf(env, image, node));
    object.Set("gate", gateOf(env, image, node));
  }
  if (kind == NodeKind::link) {
    const auto* const text = reinterpret_cast<const char*>(image.bytes().data() + node.content);
    object.Set("text", Napi::String::New(env, text, node.size));
  }
  if (kind == NodeKind::file) {
    object.Set("value", numberOf(env, node.content));  // the same for all that show one piece
    object.Set("skip", numberOf(env, node.skip));
    object.Set("mappable", (node.flags & nodeMappable) != 0);
    object.Set("leaseShiftMs", Napi::Number::New(env, static_cast<double>(node.leaseShiftMs)));
    const bool superseded = (node.flags & nodeSuperseded) != 0;
    if (superseded) object.Set("readableUntilMs", numberOf(env, node.readableUntilMs));
  }
  return object;
}

Napi::Value nodes(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const std::shared_lock guard(core->lock());
  const Image& image = core->nodes().image();
  Napi::Array all = Napi::Array::New(env);
  std::uint32_t count = 0;
  for (const NodeRecord& node : image.nodes()) {
    if (node.id != 0) all.Set(count++, nodeOf(env, image, node));
  }
  return all;
}

Napi::Value valueOf(const Napi::CallbackInfo& info, const SharedCore& core) {
  const Napi::Env env = info.Env();
  const auto id = sizeArgument(info, {"valueOf", "node", 0});
  if (!id) return env.Undefined();
  const auto piece = core->valueOf(*id);
  return piece ? pieceBuffer(env, core, *piece) : env.Null();
}

Napi::Value keepNote(const Napi::CallbackInfo& info, const SharedCore& core) {
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throwTypeError(info.Env(), "keepNote: note must be a Uint8Array");
    return info.Env().Undefined();
  }
  const auto note = info[0].As<Napi::Uint8Array>();
  return Napi::Boolean::New(info.Env(), core->keepNote(std::as_bytes(std::span(note.Data(), note.ElementLength()))));
}

Napi::Value keptNote(const Napi::CallbackInfo& info, const SharedCore& core) {
  const std::shared_lock guard(core->lock());
  const std::string_view note = core->nodes().image().keptNote();
  return Napi::Buffer<char>::Copy(info.Env(), note.data(), note.size());
}

}  // namespace

void exportInheritance(Napi::Env env, Napi::Object arena, const SharedCore& core) {
  arena.Set("nodes", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return nodes(i, core); }, "nodes"));
  arena.Set("valueOf", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return valueOf(i, core); }, "valueOf"));
  arena.Set("keepNote", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return keepNote(i, core); }, "keepNote"));
  arena.Set("keptNote", Napi::Function::New(env, [core](const Napi::CallbackInfo& i) { return keptNote(i, core); }, "keptNote"));
  const auto descriptor = [core](const Napi::CallbackInfo& i) { return Napi::Number::New(i.Env(), core->mapping().descriptor()); };
  arena.Set("descriptor", Napi::Function::New(env, descriptor, "descriptor"));
  const auto servedUntil = [core](const Napi::CallbackInfo& i) { return numberOf(i.Env(), core->servedUntil()); };
  arena.Set("servedUntil", Napi::Function::New(env, servedUntil, "servedUntil"));
  arena.Set("letGo", Napi::Function::New(env, [core](const Napi::CallbackInfo&) { core->letGo(); }, "letGo"));
}

}  // namespace inro
