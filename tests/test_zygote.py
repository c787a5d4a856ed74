"""A process that is forked is like one that is started."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

StartPython = Callable[..., subprocess.Popen[str]]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

TELLING = """
import json, os, sys
main = sys.modules["__main__"]
told = [sys.argv, sys.path, os.getcwd(), main.__file__, main is sys.modules[__name__], os.getppid()]
told += [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpgid(os.getppid()), sys.stdin.read()]
told += [open("/proc/self/cmdline").read().rstrip("\\0").split("\\0")]
print(json.dumps([told, len(os.listdir("/proc/self/fd")), dict(os.environ)]))
print("wrong", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_leader", [False, True])
def test_a_script_sees_the_same(is_leader: bool, start_python: StartPython, tmp_path: Path) -> None:
    script = tmp_path / "telling.py"
    script.write_text(TELLING)
    options = {"cwd": tmp_path, "start_new_session": is_leader, "variables": {"MORE": "1"}, **PIPES}
    forked = start_python(script, "word", **options)
    started = start_python(script, "word", preexec_fn=None, **options)
    assert type(forked) is not type(started)
    (told, files, variables), (expected, needed, given) = (
        json.loads(process.communicate(timeout=60)[0]) for process in (forked, started)
    )
    assert told == expected
    assert files == needed + 1  # the socket to what forks processes for this one
    assert given.items() <= variables.items()  # and what imports have set
    assert forked.returncode == started.returncode == 3


NESTING = """
import json, os, subprocess, sys
told = [os.getpid(), os.getppid(), os.getpgid(0), "torch" in sys.modules, sys.argv]
print(json.dumps(told), flush=True)
if "LOCAL_RANK" not in os.environ:
    rank = {**os.environ, "LOCAL_RANK": "1", "SLURM_JOB_NAME": "bash"}
    done = subprocess.run([sys.executable, *sys.argv], env=rank)
    late = subprocess.run([sys.executable, *sys.argv], env={**rank, "PYTHONPATH": ""})
    sys.exit(done.returncode + late.returncode)
sys.exit(3)
"""


@pytest.mark.slow
def test_a_process_that_it_starts_of_itself_is_forked_too(
    start_python: StartPython, tmp_path: Path
) -> None:
    script = tmp_path / "nesting.py"
    script.write_text(NESTING)
    process = start_python(script, "word", start_new_session=True, **PIPES)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (6, "")
    outer, inner, new = map(json.loads, printed.splitlines())
    words = [str(script), "word"]
    assert outer == [process.pid, os.getpid(), process.pid, True, words]
    assert inner[1:] == [process.pid, process.pid, True, words]
    # With other variables that Python reads at its start, it is not.
    assert new[1:] == [process.pid, process.pid, False, words]


@pytest.mark.slow
def test_random_numbers_an_error_and_a_signal_are_its_own(
    start_python: StartPython, tmp_path: Path
) -> None:
    script = tmp_path / "drawing.py"
    script.write_text("import random, numpy; print(random.random(), numpy.random.rand()); 1 / 0")
    drawn = []
    for _ in range(2):
        process = start_python(script, **PIPES)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.endswith("ZeroDivisionError: division by zero\n")
        drawn += printed.split()
    assert len(set(drawn)) == 4
    script.write_text("import time; print(flush=True); time.sleep(60)")
    process = start_python(script, **PIPES)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
