// What JavaScript passes in, checked once at the border. Each gives nothing after it has thrown, in words that name the
// function and the argument.
#pragma once

#include <napi.h>

#include <cstddef>
#include <optional>
#include <string>

namespace inro {

struct Parameter {
  const char* function;
  const char* name;
  std::size_t index;
};

// A whole number from 1 to 2^53 - 1. TypeError when it is no number, RangeError when it is another one.
std::optional<std::size_t> sizeArgument(const Napi::CallbackInfo& info, Parameter parameter);
// A string without NUL, which the C library would take for its end, and not empty.
std::optional<std::string> textArgument(const Napi::CallbackInfo& info, Parameter parameter);
// An ArrayBuffer: not a view of one, not a SharedArrayBuffer.
std::optional<Napi::ArrayBuffer> bufferArgument(const Napi::CallbackInfo& info, Parameter parameter);

void throwTypeError(Napi::Env env, const std::string& words);

}  // namespace inro
