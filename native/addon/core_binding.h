// The core as the bindings share it: it lives until the last function, piece or server that uses it is gone.
#pragma once

#include <napi.h>

#include <memory>

#include "core.h"

namespace inro {

using SharedCore = std::shared_ptr<Core>;

// Adds to an arena with nodes what can be done with those.
void exportNodes(Napi::Env env, Napi::Object arena, const SharedCore& core);

}  // namespace inro
