"""Runs a vqtrain command line, and ends it when its parent process has ended.

Run as ``python -m vqtrain.launchers.parts.child COMMAND ...`` with a pipe from the parent as stdin.
"""

import os
import runpy
import signal
import sys
import threading
import time

# Seconds that a command has for an orderly end.
GRACE_S = 20.0


def _end_with_parent() -> None:
    """Wait for the end of stdin, which the parent's end closes, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv[0] = "vqtrain"
    runpy.run_module("vqtrain", run_name="__main__", alter_sys=True)
