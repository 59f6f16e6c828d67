"""Processes of the stages without the seconds in which they import: forked from one that has.

`Forks` starts this file as a server, which imports some libraries (none of ours) and forks a child
for each command. The child is what `python MAIN …` is from there on: a process of its own, with its
arguments, environment, folder, streams and exit code. The server ends with the tests' process.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 1 << 20  # bytes of a command with its environment


class Forked:
    """A command that runs, as subprocess.Popen has it."""

    def __init__(self, words: list[str], answers: int, streams: list[int]):
        self._words, self._answers, self._streams = words, os.fdopen(answers), streams
        self.pid = int(self._answers.readline())

    def wait(self) -> subprocess.CompletedProcess:
        """Return how it ended and what it printed."""
        with self._answers:
            code, output = int(self._answers.readline()), []
        for stream in self._streams:
            with os.fdopen(stream) as file:
                file.seek(0)
                output.append(file.read())
        return subprocess.CompletedProcess(self._words, code, *output)


class Forks:
    """A server that has imported some modules; started with the first command."""

    def __init__(self, *modules: str):
        self._modules, self._server, self._ours = modules, None, None

    def start(self, words: list[str], **environment: str) -> Forked:
        """Run a script with its arguments, in this folder and environment with some changes."""
        if self._ours is None:
            self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
            with theirs:
                command = [sys.executable, __file__, str(theirs.fileno()), *self._modules]
                self._server = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=ROOT
                )
        answers, theirs = os.pipe()
        streams = [os.memfd_create(name) for name in ("stdout", "stderr")]
        request = json.dumps([words, os.getcwd(), os.environ | environment]).encode()
        socket.send_fds(self._ours, [request], [theirs, *streams])
        os.close(theirs)
        return Forked(words, answers, streams)

    def close(self) -> None:
        """End the server."""
        if self._ours is not None:
            self._ours.shutdown(socket.SHUT_RDWR)  # a process forked since may hold a copy of it
            self._ours.close()
            assert self._server.wait() == 0


def serve(requests: socket.socket) -> None:
    """Fork for each request; return in the child that is to run its script."""
    while True:
        request, passed, *_ = socket.recv_fds(requests, LONGEST, 3)
        if not request:
            os._exit(0)  # the tests have ended
        if os.fork() == 0:
            break
        for descriptor in passed:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    requests.close()
    answers, *streams = passed
    if child := os.fork():  # this process stays to say how the child ended
        os.write(answers, f"{child}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, f"{code}\n".encode())
        os._exit(0)
    os.close(answers)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = os.path.dirname(sys.argv[0])


if __name__ == "__main__":
    for module in sys.argv[2:]:
        import_module(module)
    gc.freeze()  # a child's collector leaves the parent's pages alone
    serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # Python's own end, but for taking all modules apart: with torch that takes two seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
