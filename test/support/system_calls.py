"""
System calls against a mount, as rows of a table: each row is an expression, answered by a child of its own that may hang or crash.
Its outcome is its value, `ok` for None, the errno's name, the signal that killed it, or `hangs`.
"""
import array
import fcntl
import json
import signal
import socket
import stat
import termios
import threading

from async_reads import IOSQE_ASYNC, Uring, aio_read
from kernel_calls import *

# One of the two names that Python has for it.
errno.errorcode[errno.EOPNOTSUPP] = "EOPNOTSUPP"
# Longest wait for one row; the calls themselves take microseconds.
row_ms = 10_000
# The size of a handle, a dirent's or a stat's room: more than any of them takes.
room_bytes = 4096

O_DIRECT, O_NOATIME, O_TMPFILE = os.O_DIRECT, os.O_NOATIME, os.O_TMPFILE
AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EACCESS = 0x1000, 0x100, 0x400, 0x200
RWF_HIPRI, RWF_NOWAIT, RWF_DONTCACHE = 1, 8, 0x80
FIONREAD, FIGETBSZ, FITRIM, FICLONE = 0x541B, 2, 0xC0185879, 0x40049409
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_GETVERSION = 0x80086601, 0x40086602, 0x801C581F, 0x80087601
FS_IOC_FIEMAP, FS_IOC_ENABLE_VERITY = 0xC020660B, 0x40806685
STATX_BASIC, STATX_BTIME, STATX_ALL = 0x7FF, 0x800, 0x7FFFFFFF
AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC = 0x2000, 0x4000
F_OFD_SETLK, F_ADD_SEALS = 37, 1033
MADV_POPULATE_READ = 22
IN_ALL_EVENTS, IN_DONT_FOLLOW = 0xFFF, 0x2000000


def raw(path):
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")


def content(fd):
    return os.read(fd, 65536)


def opens(path, flags=0, dir_fd=None):
    """What a descriptor that was opened so gives, which is closed again."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        return content(fd)
    finally:
        os.close(fd)


def reopened(path, flags=0):
    """By its descriptor, that an O_PATH names, as runc and systemd do."""
    fd = os.open(path, O_PATH)
    return opens(f"/proc/self/fd/{fd}", flags)


def as_user(uid, gid, groups=()):
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def access(path, mode, flags=0, dirfd=AT_FDCWD):
    """faccessat2, of the kernel itself: the C library's access(3) may do it another way."""
    checked(libc.syscall(439, dirfd, raw(path), mode, flags))


def access_as(uid, gid, groups, name, mode, effective=False):
    """faccessat2 by a user who can see `web`, but not the mount's root. With `effective` the real ids stay root's."""
    dirfd = os.open(web, O_PATH)
    if effective:
        os.setgroups(groups)
        os.setresgid(0, gid, 0)
        os.setresuid(0, uid, 0)
    else:
        as_user(uid, gid, groups)
    access(name, mode, AT_EACCESS if effective else 0, dirfd)


def handle_of(path, flags=0):
    """[type, bytes] of name_to_handle_at."""
    room = bytearray(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    held = (ctypes.c_char * len(room)).from_buffer(room)
    checked(libc.name_to_handle_at(AT_FDCWD, raw(path), held, ctypes.byref(mount), flags))
    size, kind = struct.unpack_from("Ii", room)
    return kind, bytes(room[8:8 + size])


def open_handle(handle, flags=0):
    kind, data = handle
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    packed = ctypes.create_string_buffer(struct.pack("Ii", len(data), kind) + data)
    return checked(libc.open_by_handle_at(at, packed, flags))


def statx(path, mask=STATX_BASIC, flags=0, dirfd=AT_FDCWD):
    """[the mask that was answered, size, mode]."""
    room = ctypes.create_string_buffer(256)
    checked(libc.statx(dirfd, raw(path), flags, mask, room))
    answered, = struct.unpack_from("I", room, 0)
    mode, = struct.unpack_from("H", room, 28)
    size, = struct.unpack_from("Q", room, 40)
    return [answered & mask, size, oct(mode)]


def statfs(of):
    """[blocks, free, files, longest name, ro + nosuid + nodev + noexec]."""
    told = os.fstatvfs(of) if isinstance(of, int) else os.statvfs(of)
    return [told.f_blocks, told.f_bfree, told.f_files, told.f_namemax, told.f_flag & 15]


def ioctl(of, request, size=room_bytes):
    """What it leaves in the argument's first 4 bytes."""
    argument = ctypes.create_string_buffer(size)
    fd = of if isinstance(of, int) else os.open(of, os.O_RDONLY)
    checked(libc.ioctl(fd, ctypes.c_ulong(request), argument))
    return struct.unpack_from("i", argument)[0]


def pipe():
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def preadv2(fd, size, offset, flags):
    data = bytearray(size)
    got = os.preadv(fd, [data], offset, flags)
    return bytes(data[:got])


def readv(fd, sizes, offset=None):
    parts = [bytearray(size) for size in sizes]
    got = os.readv(fd, parts) if offset is None else os.preadv(fd, parts, offset)
    return [got, b"".join(parts)[:got]]


def read_with_cursor(fd, *steps):
    """Of seeks (offset, whence) and reads (length), what each gave."""
    return [os.lseek(fd, *step) if isinstance(step, tuple) else os.read(fd, step) for step in steps]


def read_to_bad_address(fd, size=4096):
    checked(libc.read(fd, ctypes.c_void_p(8), ctypes.c_size_t(size)))


def read_across_end_of_room(fd):
    """Into a page with nothing behind it: how much comes, or the error."""
    start = libc.mmap(None, 2 * page, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    checked(libc.munmap(ctypes.c_void_p(start + page), ctypes.c_size_t(page)))
    return checked(libc.read(fd, ctypes.c_void_p(start + page - 3), ctypes.c_size_t(100)))


def an_empty_file():
    return os.open(scratch + "/other", os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def copied(fd, size=65536):
    to = an_empty_file()
    os.copy_file_range(fd, to, size)
    return os.pread(to, size, 0)


def cloned(fd):
    fcntl.ioctl(an_empty_file(), FICLONE, fd)


def spliced(fd, size=65536):
    return os.read(splice(fd, size), size)


def sent(fd, size=65536):
    return os.read(sendfile(fd, size), size)


def sent_to_socket(fd, size=65536):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    os.sendfile(ours.fileno(), fd, 0, size)
    return theirs.recv(size)


def sent_to_file(fd, size=65536):
    to = an_empty_file()
    os.sendfile(to, fd, 0, size)
    return os.pread(to, size, 0)


def teed(fd):
    first, second = splice(fd), pipe()
    checked(libc.tee(first, second[1], ctypes.c_size_t(65536), 0))
    return [os.read(first, 65536), os.read(second[0], 65536)]


def spliced_into(fd):
    ends = pipe()
    os.write(ends[1], b"other")
    checked(libc.splice(ends[0], None, fd, None, ctypes.c_size_t(5), 0))


def readahead(fd):
    checked(libc.readahead(fd, ctypes.c_long(0), ctypes.c_size_t(65536)))


def resident(fd):
    """How many of the first page are in the page cache, as mincore(2) says of a mapping that is not touched."""
    return Mapping(fd, 1, mmap.MAP_SHARED).resident()


def cached(fd):
    """The same by cachestat(2), which needs no mapping: an mmap of the file drops its pages. Pages without content count too."""
    answer = (ctypes.c_uint64 * 5)()
    whole = (ctypes.c_uint64 * 2)(0, 0)
    checked(libc.syscall(451, fd, whole, answer, 0))
    return answer[0]


def read_and_resident(fd):
    os.read(fd, 100)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
    return resident(fd)


def read_and_cached(fd):
    resident(fd)
    os.read(fd, 100)
    return cached(fd)


def mapped(fd, protection=mmap.PROT_READ, kind=mmap.MAP_PRIVATE, length=page, offset=0):
    address = libc.mmap(None, length, protection, kind, fd, offset)
    if address == ctypes.c_void_p(-1).value:
        checked(-1)
    return address


def touched(address, size=5):
    """The mapping's bytes, by touching them."""
    return ctypes.string_at(address, size)


def changed(address):
    """A page of one's own: written in place."""
    ctypes.memmove(address, b"other", 5)
    return ctypes.string_at(address, 5)


def made_writable(address):
    checked(libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE))


def made_executable(address):
    checked(libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_EXEC))


def advised(address, advice):
    checked(libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(page), advice))


def locked_range(fd, command, kind):
    """fcntl's lock on the first byte; of F_GETLK, the kind that is in the way."""
    told = fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0))
    return struct.unpack_from("h", told)[0]


def flocked_twice(fd, path):
    """Another descriptor's lock is in the way."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_file_range(fd):
    checked(libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7))


def syncfs(fd):
    checked(libc.syncfs(fd))


def fallocate(fd, mode=0):
    checked(libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(10)))


def linked(path, to):
    """By descriptor, as O_TMPFILE files get their name."""
    fd = os.open(path, O_PATH)
    checked(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, raw(to), AT_SYMLINK_FOLLOW))


def renamed(one, other, flags=0):
    checked(libc.renameat2(AT_FDCWD, raw(one), AT_FDCWD, raw(other), flags))


def chmod_at(path, mode, flags):
    checked(libc.syscall(452, AT_FDCWD, raw(path), mode, flags))


def entries(path, room=1 << 16, at=None):
    """[name, position behind it] of getdents64 with so much room, from a position on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if at is not None:
        os.lseek(fd, at, os.SEEK_SET)
    return entries_of(fd, room)


def entries_of(fd, room=1 << 16):
    found = []
    buffer = ctypes.create_string_buffer(room)
    while got := checked(libc.getdents64(fd, buffer, ctypes.c_size_t(room))):
        offset = 0
        while offset < got:
            _, position, length, _ = struct.unpack_from("QqHB", buffer, offset)
            name = buffer.raw[offset + 19:offset + length].split(b"\0")[0]
            found.append([name.decode("utf-8", "surrogateescape"), position])
            offset += length
    return found


def positions(path):
    return [position for _, position in entries(path)]


def rewound(fd):
    """What the same descriptor lists: first, at its end, and from the beginning again."""
    first, second = entries_of(fd), entries_of(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    return [sorted(name for name, _ in listed) for listed in (first, second, entries_of(fd))]


def names(path, room=1 << 16):
    return sorted(name for name, _ in entries(path, room))


def ran(path, by_descriptor=False):
    if by_descriptor:
        os.execve(os.open(path, os.O_RDONLY), [path], {})
    os.execve(path, [path], {})


def place(**paths):
    """What the rows call `root`, `web`, `key` and so on."""
    globals().update(paths)


def rows(texts):
    return [row(text) for text in texts]


def row(text):
    ends = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.write(ends[1], json.dumps(outcome(text), default=as_json).encode())
        finally:
            os._exit(0)
    os.close(ends[1])
    try:
        if not polled(ends[0], POLLIN, row_ms):
            os.kill(child, signal.SIGKILL)
            return "hangs"  # not waited for: SIGKILL does not end every wait
        said = os.read(ends[0], 65536)
        _, status = os.waitpid(child, 0)
        return json.loads(said) if said else signal.Signals(os.WTERMSIG(status)).name
    finally:
        os.close(ends[0])


def outcome(text):
    return failing(lambda: eval(text, globals()))


def failing(call, *arguments):
    try:
        value = call(*arguments)
        return "ok" if value is None else value
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        return repr(error)


class Watches:
    """inotify on paths that have names; an event is told as `NAME[/ENTRY] EVENT`."""

    EVENTS = ["ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO", "CREATE", "DELETE",
              "DELETE_SELF", "MOVE_SELF", "", "UNMOUNT", "Q_OVERFLOW", "IGNORED"]

    def __init__(self, **paths):
        self.inotify = Inotify()
        self.names = {self.inotify.watch(path, IN_ALL_EVENTS | IN_DONT_FOLLOW): name for name, path in paths.items()}

    def until(self, last):
        """All events up to this one, waited for."""
        seen = []
        while last not in seen and polled(self.inotify.fd, POLLIN, row_ms):
            data = os.read(self.inotify.fd, 65536)
            while data:
                watch, mask, _, length = struct.unpack_from("iIII", data)
                entry = data[16:16 + length].split(b"\0")[0].decode()
                event = self.EVENTS[(mask & 0xFFFF).bit_length() - 1]
                seen.append(f"{self.names[watch]}{'/' if entry else ''}{entry} {event}")
                data = data[16 + length:]
        return seen


class Fanotify:
    """fanotify(7) on one path: events are told as [their mask, what their descriptor reads], where it has one."""

    OPEN, ACCESS, CLOSE, OPEN_PERM, ACCESS_PERM = 0x20, 1, 0x10, 0x10000, 0x20000
    ALLOW, DENY = 1, 2

    def __init__(self, path, mask, of=0, report=0):
        content = mask & (self.OPEN_PERM | self.ACCESS_PERM) != 0
        self.fd = checked(libc.fanotify_init(1 | 2 | report | (4 if content else 0), os.O_RDONLY | os.O_CLOEXEC))
        checked(libc.fanotify_mark(self.fd, 1 | of, ctypes.c_uint64(mask), AT_FDCWD, raw(path)))

    def seen(self, answer=None):
        """The next ones."""
        polled(self.fd, POLLIN, row_ms)
        data, seen = os.read(self.fd, 65536), []
        while data:
            length, _, _, _, mask, fd, _ = struct.unpack_from("IBBHQii", data)
            if answer:
                os.write(self.fd, struct.pack("iI", fd, answer))
            elif fd >= 0:
                seen.append([mask, os.pread(fd, 100, 0).decode() if not stat.S_ISDIR(os.fstat(fd).st_mode) else ""])
            else:
                seen.append([mask, length > 24])
            if fd >= 0:
                os.close(fd)
            data = data[length:]
        return seen

    def answering(self, answer, call, *args):
        """What the call gives while the events that it waits for are answered so."""
        child = threading.Thread(target=lambda: self.seen(answer), daemon=True)
        child.start()
        return call(*args)


class Epoll:
    """Of one descriptor. A wait that is begun here has begun when the constructor returns."""

    def __init__(self, fd, events):
        self.epoll = select.epoll()
        self.epoll.register(fd, events)

    def now(self):
        return sum(events for _, events in self.epoll.poll(0))

    def waited(self):
        return sum(events for _, events in self.epoll.poll(row_ms / 1000))


def becomes(check):
    """Whether it is so at last."""
    end = time.monotonic() + row_ms / 1000
    while not check() and time.monotonic() < end:
        time.sleep(0.01)
    return check()
