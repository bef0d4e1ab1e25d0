// The core as the bindings share it: it lives until the last function, piece or server that uses it is gone.
#pragma once

#include <napi.h>

#include <memory>

#include "core.h"

namespace inro {

using SharedCore = std::shared_ptr<Core>;

// An ArrayBuffer whose memory is the piece, which comes back when it is collected. At most one for each piece.
Napi::Value pieceBuffer(Napi::Env env, const SharedCore& core, const Arena::Piece& piece);

// Adds to an arena with nodes what can be done with those.
void exportNodes(Napi::Env env, Napi::Object arena, const SharedCore& core);
// And what a successor finds in it.
void exportInheritance(Napi::Env env, Napi::Object arena, const SharedCore& core);
// And how units of systemd are given it.
void exportCredentialServer(Napi::Env env, Napi::Object arena, const SharedCore& core);
// And who accessed it.
void exportAccesses(Napi::Env env, Napi::Object arena, const SharedCore& core);

}  // namespace inro
