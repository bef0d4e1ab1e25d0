// What each binding adds to the addon's exports. The shape is the interface in src/system/addon.ts.
#pragma once

#include <napi.h>

namespace inro {

void exportArena(Napi::Env env, Napi::Object exports);
void exportCredentials(Napi::Env env, Napi::Object exports);
void exportDescriptors(Napi::Env env, Napi::Object exports);
void exportProcesses(Napi::Env env, Napi::Object exports);
void exportSelfTest(Napi::Env env, Napi::Object exports);
void exportSyscalls(Napi::Env env, Napi::Object exports);

}  // namespace inro
