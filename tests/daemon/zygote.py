"""Processes that are made to be killed, forked from one that has imported what they need: each costs milliseconds.

A job is a function of a module beside this one, called with texts in a process of its own. It waits until it is told
to go, so that strace can take hold of it before. `Job` has the shape of a Popen as far as the daemon uses it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
SEEN = (HERE, HERE.parent, HERE.parent.parent)
"""Where the jobs' modules, and what they import, are looked for."""
ANYBODY = (0x59616D61, ctypes.c_ulong(-1))
"""prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY): strace is no parent of the job, which some systems ask for."""
ASKED: list[socket.socket] = []
"""In a job: whom it may ask for further ones."""


class Zygote:
    """The process that forks them."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as file:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=file, stdout=file)

    def job(self, call: str, *args: object) -> Job:
        """A job that waits to be told to go: `module:function` and its arguments."""
        return Job(self.control, self.log, call, *map(str, args))

    def close(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()


class Job:
    """A process that is somebody else's child, and whose end that one tells."""

    def __init__(self, control: socket.socket, log: Path, call: str, *args: str) -> None:
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        with log.open("ab") as file:
            fds = [read, file.fileno(), theirs.fileno(), control.fileno()]
            socket.send_fds(control, [json.dumps([call, *args]).encode()], fds)
        os.close(read)
        theirs.close()
        self.stdin = os.fdopen(write, "wb", buffering=0)
        self.pid = int(self._told.recv(64))
        self._code: int | None = None

    def go(self) -> Job:
        self.stdin.write(b"\n")
        return self

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative if a signal ended it; TimeoutExpired if it has none by then."""
        if self._code is None:
            self._told.settimeout(timeout)
            try:
                self._code = int(self._told.recv(64))
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from error
            self._told.close()
            self.stdin.close()
        return self._code

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


# ---------------------------------------------------------------- in the zygote


def serve(control: socket.socket) -> None:
    """Fork a job for every request, until nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what looks after a job is waited for by nobody
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not data:
            return
        call, *args = json.loads(data)
        module, _, name = call.partition(":")
        imported = importlib.import_module(module)  # before the fork, so once for all
        if os.fork() == 0:
            control.close()
            attend(fds, getattr(imported, name), args)
        for fd in fds:
            os.close(fd)


def attend(fds: list[int], function: object, args: list[str]) -> NoReturn:
    """Fork the job, wait for its end and tell it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told = socket.socket(fileno=fds[2])
    pid = os.fork()
    if pid == 0:
        begin(fds, told, function, args)
    for fd in (fds[0], fds[1], fds[3]):
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):  # who asked may be dead
        told.send(str(code).encode())
    os._exit(0)


def begin(fds: list[int], told: socket.socket, function: object, args: list[str]) -> NoReturn:
    """Be the job."""
    for standard, fd in enumerate((fds[0], fds[1], fds[1])):
        os.dup2(fd, standard)
    os.close(fds[0])
    os.close(fds[1])
    ASKED.append(socket.socket(fileno=fds[3]))
    ctypes.CDLL(None).prctl(*ANYBODY, 0, 0, 0)
    code = 1
    try:
        told.send(str(os.getpid()).encode())
        told.close()
        os.read(0, 1)
        assert callable(function)
        code = function(*args) or 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path[:0] = [str(folder) for folder in SEEN]
    sys.modules["zygote"] = sys.modules["__main__"]
    serve(socket.socket(fileno=int(sys.argv[1])))
