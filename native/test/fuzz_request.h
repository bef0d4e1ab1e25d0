// What fuzz_request reads and seeds.cc writes: requests and changes, one after the other.
#pragma once

#include <string>

#include "world.h"

namespace inro::test {

// One is: how many bytes of body (two bytes), which opcode or change, which node, how the length is wrong, the body.
constexpr std::size_t askHeaderBytes = 5;
constexpr std::size_t maxBodyBytes = 1200;
constexpr std::uint8_t fuzzOpcodes = 60;  // what is above is a change
enum class FuzzChange : std::uint8_t { publish = fuzzOpcodes, wipe, withdraw, leaseEnds, leaseBegins };
constexpr std::uint8_t fuzzKinds = 65;
enum class FuzzLength : std::uint8_t { right, tooLong, cut };
constexpr std::uint8_t fuzzSlots = 24;

inline std::string one(std::uint8_t kind, std::uint8_t slot, std::string_view body = {}, FuzzLength length = FuzzLength::right) {
  const std::string header{static_cast<char>(body.size() & 0xff), static_cast<char>(body.size() >> 8), static_cast<char>(kind),
                           static_cast<char>(slot), static_cast<char>(length)};
  return header + std::string(body);
}

}  // namespace inro::test
