"""Forks processes of tests from one that has imported what vqtrain needs, which takes seconds.

Run as a script, with a socket for its standard input. Each message is one process: its words after
``python``, its folder, its environment, and its three standard files. A process runs as if it were
new: this script has no part in it but to name the program, and to keep a copy of itself beside it,
from which the processes that vqtrain starts are forked in turn.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

MESSAGE_BYTES = 1 << 17
# What vqtrain imports when it comes to it.
LATE = ["matplotlib.pyplot", "skimage", "webdataset"]
# Run as programs, before which they must not be imported.
PROGRAMS = ["vqtrain.__main__", "vqtrain.launchers.parts.child"]
# A variable of processes for which nothing is forked.
STARTS_NEW = "STARTS_NEW"
PR_SET_CHILD_SUBREAPER = 36  # of Linux
# Room for the words of a process, as ps and /proc show them.
ROOM = "-" * (1 << 14)
# These differ from process to process, and nothing reads them before a command needs them.
READ_LATE = (
    *("PYTEST_CURRENT_TEST", "TORCH_HOME", "VQTRAIN_CACHE"),
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *("LOCAL_WORLD_SIZE", "COLUMNS", "PYTHONUNBUFFERED"),
    # Set by a command, for itself, wherever it runs.
    *("TORCH_CPP_LOG_LEVEL", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"),
)
# Nor what a cluster tells its jobs.
READ_LATE_PREFIXES = ("SLURM_", "SUBMITIT_")


def read_early(variables: Mapping[str, str]) -> dict[str, str]:
    """Keep the variables that Python may have read at its start, or a module at its import."""
    return {
        name: value
        for name, value in variables.items()
        if name not in READ_LATE and not name.startswith(READ_LATE_PREFIXES)
    }


class Zygote:
    """A process that forks others, as the one that asks for them sees it.

    Args:
        channel: A socket to it.
        variables: The environment in which it has imported vqtrain.
    """

    process: "subprocess.Popen[bytes]"

    def __init__(self, channel: socket.socket, variables: Mapping[str, str]) -> None:
        self.channel, self.variables = channel, dict(variables)
        self.one_at_a_time = Lock()

    def close(self) -> None:
        """End it, but not what it has forked."""
        self.channel.shutdown(socket.SHUT_RDWR)  # also of the copies that forks of this one hold
        self.channel.close()
        self.process.wait()

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Say whether a process in this environment is like one that is forked."""
        return read_early(environment) == read_early(self.variables)

    def fork(self, request: Mapping[str, object], files: list[int]) -> int:
        """Return the id of a process that has become a child of this one."""
        prctl = ctypes.CDLL(None).prctl
        with self.one_at_a_time:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            socket.send_fds(self.channel, [json.dumps(request).encode()], files)
            number = int(self.channel.recv(64))
            assert self.channel.recv(64) == b"adopted"
            prctl(PR_SET_CHILD_SUBREAPER, 0)
        return number


def start(variables: Mapping[str, str]) -> Zygote:
    """Start a zygote with these variables."""
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = Zygote(channel, variables)
    zygote.process = subprocess.Popen(
        [sys.executable, __file__, ROOM],
        stdin=theirs,
        env=dict(variables),
        process_group=0,  # Ctrl-C is not for it
    )
    theirs.close()
    return zygote


class ForkedProcess(subprocess.Popen[str]):
    """A Python process that a zygote forks, otherwise as if it were started."""

    def __init__(self, zygote: Zygote, command: list[str], **options: object) -> None:
        self.zygote = zygote
        super().__init__(command, **options)  # type: ignore[call-overload]  # options of Popen

    def _execute_child(  # type: ignore[override]  # what Popen gives all its options
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest
    ) -> None:
        del executable, preexec_fn, close_fds, pass_fds
        pipes, start_new_session = rest[3:9], rest[-2]
        stdin, _, _, stdout, _, stderr = pipes
        files = [own if file == -1 else file for own, file in enumerate((stdin, stdout, stderr))]
        request = {
            "words": [os.fspath(word) for word in args[1:]],
            "folder": os.fspath(cwd or Path.cwd()),
            "environment": env,
            "new_session": start_new_session,
            "group": os.getpgid(0),
        }
        self.pid = self.zygote.fork(request, files)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def fork_what_vqtrain_starts(zygote: Zygote) -> None:
    """Let a zygote make the processes in which vqtrain starts itself, for itself or its ranks."""
    start = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # of Popen

    def execute(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest) -> None:
        env = dict(os.environ if env is None else env)
        python, *words = [args] if isinstance(args, str) else args
        is_vqtrain = words[:1] == ["-m"] and words[1].split(".")[0] == "vqtrain"
        is_own = python == sys.executable and (is_vqtrain or words[:1] == sys.argv[:1])
        self.zygote = zygote
        way = ForkedProcess._execute_child if is_own and zygote.suits(env) else start
        way(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)

    subprocess.Popen._execute_child = execute  # type: ignore[attr-defined]  # of Popen


def import_all() -> dict[str, str]:
    """Import vqtrain and what it imports; return the variables that these have set."""
    given = set(os.environ)
    # As cli.py does, before torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    package = importlib.import_module("vqtrain")
    for module in pkgutil.walk_packages(package.__path__, "vqtrain."):
        if module.name not in PROGRAMS:
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be forked"  # noqa: PTH208
    gc.collect()
    gc.freeze()  # or every process would copy the memory of all that is imported
    return {name: value for name, value in os.environ.items() if name not in given}


def show(words: list[str]) -> None:
    """Write the words of this process where ps and /proc look for them."""
    numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(numbers[place]) for place in (45, 46))  # of its arguments in memory
    written = "\0".join(words).encode()[: end - start - 1]
    ctypes.memmove(start, written.ljust(end - start, b"\0"), end - start)


def receive(parent: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request and its files; end where the parent hangs up, or is killed as it asks."""
    message = b""
    with suppress(ConnectionResetError):
        message, files, *_ = socket.recv_fds(parent, MESSAGE_BYTES, 3)
    if not message:
        os._exit(0)
    return json.loads(message), files


def begin(request: Mapping[str, Any], files: list[int], variables: Mapping[str, str]) -> None:
    """Make this process what is asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    show([sys.executable, *request["words"]])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update({**variables, **request["environment"]})
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(write_through=is_unbuffered)  # type: ignore[union-attr]  # a file
    importlib.import_module("numpy").random.seed()  # random seeds itself, and torch is never random


def serve(parent: socket.socket, variables: Mapping[str, str]) -> list[str]:
    """Fork until the parent hangs up; return only in a new process, with its words.

    The variables are added to the environment of each. Beside each, a copy of this process serves.
    """
    while True:
        request, files = receive(parent)
        between = os.fork()
        if between == 0:
            own, child = os.getpid(), os.fork()
            if child != 0:
                parent.send(str(child).encode())
                os._exit(0)  # which makes the child one of the parent
            while os.getppid() == own:
                time.sleep(0.001)
            parent.close()
            if request["new_session"]:
                os.setsid()
            else:
                os.setpgid(0, request["group"])
            channel, parent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork() != 0:
                break
            os.setpgid(0, 0)  # signals to the group are not for it
            channel.close()
        else:
            os.waitpid(between, 0)
            parent.send(b"adopted")
        for file in files:
            os.close(file)
    parent.close()
    begin(request, files, variables)
    if STARTS_NEW not in os.environ:
        fork_what_vqtrain_starts(Zygote(channel, os.environ))
    return request["words"]


if __name__ == "__main__":
    tests = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    program, *rest = serve(tests, import_all())
    if program == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()  # noqa: PTH109
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [program, *rest], os.path.dirname(os.path.realpath(program))  # noqa: PTH120
        runpy.run_path(program, run_name="__main__")
