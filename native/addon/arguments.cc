#include "arguments.h"

#include <cmath>

namespace inro {
namespace {

constexpr double maxSafeInteger = 9007199254740991.0;

std::string expected(Parameter parameter, const char* what) {
  return std::string(parameter.function) + ": " + parameter.name + " must be " + what;
}

const char* typeName(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "a number";
    case napi_string: return "a string";
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_bigint: return "a bigint";
    case napi_external: return "an external";
    case napi_object: break;
  }
  if (value.IsTypedArray() || value.IsDataView()) return "a view (pass its buffer)";
  return "an object";
}

void throwWrongType(const Napi::CallbackInfo& info, Parameter parameter, const char* what) {
  throwTypeError(info.Env(), expected(parameter, what) + ", not " + typeName(info[parameter.index]));
}

}  // namespace

void throwTypeError(Napi::Env env, const std::string& words) {
  Napi::TypeError::New(env, words).ThrowAsJavaScriptException();
}

std::optional<std::size_t> sizeArgument(const Napi::CallbackInfo& info, Parameter parameter) {
  constexpr auto what = "a whole number of 1 or more";
  if (!info[parameter.index].IsNumber()) {
    throwWrongType(info, parameter, what);
    return std::nullopt;
  }
  const double value = info[parameter.index].As<Napi::Number>().DoubleValue();
  if (!(value >= 1 && value <= maxSafeInteger) || std::trunc(value) != value) {
    Napi::RangeError::New(info.Env(), expected(parameter, what)).ThrowAsJavaScriptException();
    return std::nullopt;
  }
  return static_cast<std::size_t>(value);
}

std::optional<std::string> textArgument(const Napi::CallbackInfo& info, Parameter parameter) {
  if (!info[parameter.index].IsString()) {
    throwWrongType(info, parameter, "a string");
    return std::nullopt;
  }
  std::string text = info[parameter.index].As<Napi::String>().Utf8Value();
  if (text.empty() || text.find('\0') != std::string::npos) {
    throwTypeError(info.Env(), expected(parameter, "a string that is not empty and has no NUL"));
    return std::nullopt;
  }
  return text;
}

std::optional<Napi::ArrayBuffer> bufferArgument(const Napi::CallbackInfo& info, Parameter parameter) {
  if (!info[parameter.index].IsArrayBuffer()) {
    throwWrongType(info, parameter, "an ArrayBuffer");
    return std::nullopt;
  }
  return info[parameter.index].As<Napi::ArrayBuffer>();
}

}  // namespace inro
