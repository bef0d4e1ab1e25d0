"""
A reader that makes the system calls that Node has no names for. Each line of its input is a JSON text of Python, each line of its
output what that gave: {"value": ...} or {"failure": the errno's name}. Names stay from one line to the next.
"""
import ctypes
import errno
import json
import mmap
import os
import select
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
page = mmap.PAGESIZE

# Not all in Python 3.9's os.
O_PATH = 0o10000000
AT_FDCWD = -100
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED = 1, 2, 4, 8, 16, 32
POLLPRI, POLLIN, POLLERR = select.POLLPRI, select.POLLIN, select.POLLERR
IN_DELETE_SELF, IN_IGNORED = 0x400, 0x8000


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def openat2(path, flags, resolve, dirfd=AT_FDCWD):
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return checked(libc.syscall(437, dirfd, path.encode(), how, len(how)))


class Mapping:
    """A mapping that is looked at through a system call: where touching it would be SIGBUS, that fails with EFAULT."""

    def __init__(self, fd, length, kind, populate=False):
        self.length = length
        self.address = libc.mmap(None, length, mmap.PROT_READ, kind, fd, 0)
        if self.address == ctypes.c_void_p(-1).value:
            checked(-1)

    def read(self, offset=0, length=1):
        ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            checked(libc.write(ends[1], ctypes.c_void_p(self.address + offset), ctypes.c_size_t(length)))
            return os.read(ends[0], length)
        finally:
            os.close(ends[0])
            os.close(ends[1])

    def lock(self):
        checked(libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(self.length)))

    def resident(self):
        pages = (self.length + page - 1) // page
        vector = (ctypes.c_ubyte * pages)()
        checked(libc.mincore(ctypes.c_void_p(self.address), ctypes.c_size_t(self.length), vector))
        return sum(one & 1 for one in vector)


def splice(fd, length=65536):
    """A pipe with what was spliced into it."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    offset = ctypes.c_long(0)
    checked(libc.splice(fd, ctypes.byref(offset), ends[1], None, ctypes.c_size_t(length), 0))
    return ends[0]


def sendfile(fd, length=65536):
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.sendfile(ends[1], fd, 0, length)
    return ends[0]


def polled(fd, events=POLLIN | POLLPRI, ms=0):
    """The events that are there within the time."""
    poll = select.poll()
    poll.register(fd, events)
    return dict(poll.poll(ms)).get(fd, 0)


class Inotify:
    def __init__(self):
        self.fd = checked(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def watch(self, path, mask):
        return checked(libc.inotify_add_watch(self.fd, path.encode(), mask))

    def events(self, ms):
        """[watch, mask] of each event, until none has come for so long or a watch has ended."""
        seen = []
        while polled(self.fd, POLLIN, ms) and not any(mask & IN_IGNORED for _, mask in seen):
            data = os.read(self.fd, 65536)
            while data:
                watch, mask, _, length = struct.unpack_from("iIII", data)
                seen.append([watch, mask])
                data = data[16 + length:]
        return seen


def as_json(value):
    if isinstance(value, bytes):
        return value.decode("latin1")
    raise TypeError(f"{type(value)} is no JSON")


def answer(text):
    try:
        code = compile(text, "check", "eval")
    except SyntaxError:
        exec(compile(text, "check", "exec"), globals())
        return None
    return eval(code, globals())


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            reply = json.dumps({"value": answer(json.loads(line))}, default=as_json)
        except OSError as error:
            reply = json.dumps({"failure": errno.errorcode.get(error.errno, str(error))})
        except Exception as error:
            reply = json.dumps({"failure": repr(error)})
        print(reply, flush=True)
