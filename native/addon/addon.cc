// The addon's door: loads into the main thread and into workers alike, each with arenas of its own.
#include "bindings.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  inro::exportArena(env, exports);
  inro::exportCredentials(env, exports);
  inro::exportDescriptors(env, exports);
  inro::exportProcesses(env, exports);
  inro::exportSelfTest(env, exports);
  inro::exportSyscalls(env, exports);
  return exports;
}

NODE_API_MODULE(inro, init)
