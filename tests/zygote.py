"""Forks processes of tests from one that has imported what vqtrain needs, which takes seconds.

Run as a script, with a socket for its standard input. Each message is one process: its words after
``python``, its folder, its environment, and its three standard files. A process runs as if it were
new: this script has no part in it but to name the program.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import time

MESSAGE_BYTES = 1 << 17
# What vqtrain imports when it comes to it.
LATE = ["matplotlib.pyplot", "skimage", "webdataset"]


def import_all() -> dict[str, str]:
    """Import vqtrain and what it imports; return the variables that these have set."""
    given = set(os.environ)
    # As cli.py does, before torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    package = importlib.import_module("vqtrain")
    for module in pkgutil.walk_packages(package.__path__, "vqtrain."):
        if module.name != "vqtrain.__main__":
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be forked"  # noqa: PTH208
    gc.collect()
    gc.freeze()  # or every process would copy the memory of all that is imported
    return {name: value for name, value in os.environ.items() if name not in given}


def serve(tests: socket.socket, variables: dict[str, str]) -> list[str]:
    """Fork until the tests hang up; return only in a new process, with its words.

    The variables are added to the environment of each.
    """
    while True:
        message, files, *_ = socket.recv_fds(tests, MESSAGE_BYTES, 3)
        if not message:
            sys.exit()
        between = os.fork()
        if between == 0:
            parent, child = os.getpid(), os.fork()
            if child == 0:
                break
            tests.send(str(child).encode())
            os._exit(0)  # which makes the child one of the tests' process
        os.waitpid(between, 0)
        tests.send(b"adopted")
        for file in files:
            os.close(file)
    while os.getppid() == parent:
        time.sleep(0.001)
    tests.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    request = json.loads(message)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(variables | request["environment"])
    importlib.import_module("numpy").random.seed()  # random seeds itself, and torch is never random
    return request["words"]


if __name__ == "__main__":
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    program, *rest = serve(channel, import_all())
    if program == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()  # noqa: PTH109
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [program, *rest], os.path.dirname(os.path.realpath(program))  # noqa: PTH120
        runpy.run_path(program, run_name="__main__")
