"""
Asks for a credential as systemd does for LoadCredential=ID:SOCKET of a unit that starts (src/shared/fileio.c): from an abstract
address that names unit and credential, shuts its own side down, reads to the end, takes no more than 1 MiB. Prints a JSON object.

credential_client.py SOCKET UNIT ID [key=value...]
  address=TEXT   another address than systemd's; "-" for none
  uid=N          as this user
  cgroup=PATH    from this cgroup
  reads=later    says "connected", and reads only when a line comes on standard input
  stays=1        says what it got, and ends with standard input
  probe=TEXT     how often this stands in what came
"""
import hashlib
import json
import os
import random
import socket
import sys

CREDENTIAL_SIZE_MAX = 1024 * 1024
path, unit, credential, *rest = sys.argv[1:]
options = dict(each.split("=", 1) for each in rest)
if "cgroup" in options:
    with open(os.path.join(options["cgroup"], "cgroup.procs"), "w") as procs:
        procs.write(str(os.getpid()))
if "uid" in options:
    os.setuid(int(options["uid"]))


def ask():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        address = options.get("address", "%x/unit/%s/%s" % (random.getrandbits(64), unit, credential))
        if address != "-":
            s.bind("\0" + address)
        s.connect(path)
        s.shutdown(socket.SHUT_WR)
        if options.get("reads") == "later":
            print("connected", flush=True)
            sys.stdin.readline()
        got = b""
        while len(got) <= CREDENTIAL_SIZE_MAX:
            chunk = s.recv(65536)
            if not chunk:
                break
            got += chunk
        return got


def said():
    try:
        got = ask()
    except OSError as error:
        return {"error": error.strerror}
    facts = {"bytes": len(got), "sha256": hashlib.sha256(got).hexdigest()}
    if "probe" in options:
        facts["probed"] = got.count(options["probe"].encode())
    if len(got) > CREDENTIAL_SIZE_MAX:
        return {**facts, "error": "larger than 1 MiB", "words": got.split(b"\n")[0].decode(errors="replace")}
    return {**facts, "text": got.decode(errors="replace") if len(got) < 1024 else ""}


print(json.dumps(said()), flush=True)
if options.get("stays") == "1":
    sys.stdin.read()
