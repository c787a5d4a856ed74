"""Times what vqtrain sweep takes besides its runs.

The sweep is run in this process with one run at a time, and every process that it starts is timed
from its start to its end, which includes what starting takes. What is left of the whole time is the
sweep's own: its imports, composing and checking the runs, waiting, tables, plot and page. The last
line is JSON.
Run: python scripts/benchmark_sweep.py experiment=demo codebook.size=64,256,1024 seed=0,1
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from vqtrain.cli import main
from vqtrain.launchers import base

start = base.start
spans: list[tuple[float, float]] = []


def timed_start(*words: object, **options: object) -> "subprocess.Popen[bytes]":
    """Start a command, and note when it ends."""
    began = time.perf_counter()
    process: subprocess.Popen[bytes] = start(*words, **options)  # type: ignore[arg-type]  # as given

    def wait() -> None:
        process.wait()
        spans.append((began, time.perf_counter()))

    threading.Thread(target=wait, daemon=True).start()
    return process


if __name__ == "__main__":
    base.start = timed_start
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        code = main(["sweep", *sys.argv[1:], f"sweep_dir={Path(folder) / 'sweep'}"])
    whole = time.perf_counter() - began
    runs = sum(end - began for began, end in spans)
    found = {
        "code": code,
        "processes": len(spans),
        "whole_s": round(whole, 2),
        "runs_s": round(runs, 2),
        "own_share": round((whole - runs) / runs, 4),
    }
    print(json.dumps(found))
