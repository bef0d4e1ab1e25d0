"""
Reads without a pause until its standard input ends, and then says how that went: {"reads": how many, "failed": errno names,
"wrong": contents that were not expected, "longestMs": the longest that one took}.
`steady_reader.py open|descriptor|list FILE CONTENT...`: by opening it each time, through one descriptor, or the folder's names.
"""
import errno
import json
import os
import select
import sys
import time

way, path, *contents = sys.argv[1:]
contents = [content.encode() for content in contents]


def by_open():
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fstat(fd)
        return os.read(fd, 65536)
    finally:
        os.close(fd)


def by_list():
    return contents[0] if os.path.basename(path) in os.listdir(os.path.dirname(path)) else b"a list without it"


kept = os.open(path, os.O_RDONLY) if way == "descriptor" else -1
read = {"open": by_open, "descriptor": lambda: os.pread(kept, 65536, 0), "list": by_list}[way]
reads, failed, wrong, longest = 0, {}, {}, 0
print("reading", flush=True)
while not (reads % 64 == 0 and select.select([0], [], [], 0)[0]):
    began = time.monotonic()
    try:
        content = read()
        if content not in contents:
            wrong[content.decode("latin1")[:60]] = wrong.get(content.decode("latin1")[:60], 0) + 1
    except OSError as error:
        name = errno.errorcode.get(error.errno, str(error))
        failed[name] = failed.get(name, 0) + 1
    longest = max(longest, time.monotonic() - began)
    reads += 1
print(json.dumps({"reads": reads, "failed": failed, "wrong": wrong, "longestMs": round(longest * 1000, 1)}), flush=True)
