# Builds native/build/Release/inro.node. Needs g++ (C++20), make, python3 and Node's own headers:
#   npx node-gyp rebuild -C native --nodedir="$(dirname "$(dirname "$(readlink -f "$(which node)")")")"
# Other people's headers come in by -isystem, so that their warnings are not our errors.
{
  "targets": [
    {
      "target_name": "inro",
      "sources": [
        "core/lock_limit.cc",
        "core/descriptor_store.cc",
        "core/descriptor_passing.cc",
        "core/locked_mapping.cc",
        "core/arena.cc",
        "core/image.cc",
        "core/nodes.cc",
        "core/caller.cc",
        "core/access_book.cc",
        "core/gate.cc",
        "core/core.cc",
        "core/channel.cc",
        "core/thread.cc",
        "core/responder.cc",
        "core/notifier.cc",
        "core/server.cc",
        "core/credentials.cc",
        "core/mount.cc",
        "addon/arguments.cc",
        "addon/arena_binding.cc",
        "addon/nodes_binding.cc",
        "addon/inheritance_binding.cc",
        "addon/access_binding.cc",
        "addon/credentials_binding.cc",
        "addon/descriptors_binding.cc",
        "addon/syscalls_binding.cc",
        "addon/addon.cc",
      ],
      "include_dirs": ["core"],
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
        "-pthread",
        "-isystem <(node_addon_api_dir)",
        "-isystem <(node_root_dir)/include/node",
      ],
      # The C++ library inside, where the compiler has the archive: a packed addon is not bound to the version of its build host,
      # and shares no symbol with Node's. Sections that nothing uses go, because they ask for a newer glibc.
      "ldflags": [
        "-Wl,-z,relro,-z,now",
        "-Wl,--exclude-libs,ALL",
        "-Wl,--gc-sections",
        "<!@(${CXX:-g++} -print-file-name=libstdc++.a | grep -q / && echo -static-libstdc++ || :)",
      ],
    }
  ]
}
