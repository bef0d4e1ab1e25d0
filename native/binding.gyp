# Builds native/build/Release/inro.node. Needs g++ (C++20), make, python3 and Node's own headers:
#   npx node-gyp rebuild -C native --nodedir="$(dirname "$(dirname "$(readlink -f "$(which node)")")")"
# Other people's headers come in by -isystem, so that their warnings are not our errors.
{
  "targets": [
    {
      "target_name": "inro",
      "sources": [
        "src/locked_mapping.cc",
        "src/arena.cc",
        "src/arguments.cc",
        "src/arena_binding.cc",
        "src/syscalls_binding.cc",
        "src/addon.cc",
      ],
      "variables": {
        "node_addon_api_dir": "<!(node -p \"require('path').resolve(require('node-addon-api').include_dir)\")",
      },
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS", "_GNU_SOURCE", "_GLIBCXX_ASSERTIONS"],
      "cflags!": ["-Wno-unused-parameter"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fno-exceptions",
        "-fvisibility=hidden",
        "-fstack-protector-strong",
        "-isystem <(node_addon_api_dir)",
        "-isystem <(node_root_dir)/include/node",
      ],
      "ldflags": ["-Wl,-z,relro,-z,now"],
    }
  ]
}
