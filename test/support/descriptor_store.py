"""
Plays the part of systemd for one service: keeps the descriptors that it stores (sd_notify(3)), hands them to it at each start
(sd_listen_fds(3)), and starts it again when it was killed. `descriptor_store.py COMMAND...`; each line of standard input is a
JSON object that changes something, each line of standard output one that tells something. At the end of its input it ends the
service and closes all descriptors.
"""
import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

SETTLE_S = 5


class Store:
    def __init__(self, command):
        self.command = command
        self.folder = tempfile.mkdtemp(prefix="inro-store-")
        self.path = os.path.join(self.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind(self.path)
        self.kept = []  # (name, fd)
        self.process = None
        self.restarts = True
        self.delay_ms = 0
        self.exits = 0

    def say(self, **event):
        print(json.dumps(event), flush=True)

    def start(self):
        if self.delay_ms > 0:
            time.sleep(self.delay_ms / 1000)
        fds = [fd for _, fd in self.kept]
        env = dict({"FDSTORE": "8"}, **os.environ, NOTIFY_SOCKET=self.path)
        if fds:
            env.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(name for name, _ in self.kept))
        # From 3 on, as sd_listen_fds(3) says. LISTEN_PID is the process's own: a shell sets it.
        shell = "LISTEN_PID=$$ exec \"$@\"" if fds else "exec \"$@\""

        def place():
            high = [os.dup2(fd, 200 + i, inheritable=False) and 200 + i for i, fd in enumerate(fds)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i, inheritable=True)

        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sh", "-c", "export LISTEN_PID; " + shell, "sh"] + self.command,
                                        env=env, close_fds=False if fds else True, preexec_fn=place if fds else None,
                                        stdin=subprocess.DEVNULL, stdout=sys.stderr)
        self.say(started=self.process.pid, descriptors=[name for name, _ in self.kept])

    def notified(self):
        fds = array.array("i")
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16 * fds.itemsize))
        for level, kind, bytes_ in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(bytes_[:len(bytes_) - len(bytes_) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTORE") == "1":
            self.kept += [(name, fd) for fd in fds]
            self.say(stored=name, poll=fields.get("FDPOLL", "1"))
        elif fields.get("FDSTOREREMOVE") == "1":
            for kept, fd in self.kept:
                if kept == name:
                    os.close(fd)
            before = len(self.kept)
            self.kept = [one for one in self.kept if one[0] != name]
            if len(self.kept) != before:
                self.say(removed=name)
        else:
            for fd in fds:
                os.close(fd)
        if "READY" in fields:
            self.say(ready=self.process.pid if self.process else 0, status=fields.get("STATUS", ""))

    def ordered(self, order):
        if "delayMs" in order:
            self.delay_ms = order["delayMs"]
        if "restarts" in order:
            self.restarts = order["restarts"]
        if "command" in order:
            self.command = order["command"]
        if "kill" in order and self.process:
            self.process.send_signal(getattr(signal, order["kill"]))
        if "drop" in order:
            self.drop()
        if "forget" in order:  # one alone
            for name, fd in self.kept:
                if name == order["forget"]:
                    os.close(fd)
            self.kept = [one for one in self.kept if one[0] != order["forget"]]
        if "start" in order:
            self.start()
        if "replace" in order:  # another descriptor under a name
            name, path = order["replace"]
            for kept, fd in self.kept:
                if kept == name:
                    other = os.open(path, os.O_RDWR)
                    os.dup2(other, fd, inheritable=False)
                    os.close(other)
        self.say(done=order.get("id", 0))

    def drop(self):
        for _, fd in self.kept:
            os.close(fd)
        self.kept = []

    def run(self):
        self.start()
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
        buffer = b""
        while True:
            for fd, _ in poll.poll(5):
                if fd == self.socket.fileno():
                    self.notified()
                    continue
                data = os.read(0, 65536)
                if not data:
                    return
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    self.ordered(json.loads(line))
            if self.process and self.process.poll() is not None:
                code = self.process.returncode
                self.process = None
                self.say(exited=code)
                if self.restarts:
                    self.start()

    def end(self):
        self.drop()
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(SETTLE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.socket.close()
        os.unlink(self.path)
        os.rmdir(self.folder)


store = Store(sys.argv[1:])
try:
    store.run()
finally:
    store.end()
