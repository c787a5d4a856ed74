"""A process that is forked is like one that is started."""

import json
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
told += [os.getsid(0) == os.getpid(), sys.stdin.read(), sorted(os.listdir("/proc/self/fd"))]
print(json.dumps([told, dict(os.environ)]))
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
    (told, variables), (expected, given) = (
        json.loads(process.communicate(timeout=60)[0]) for process in (forked, started)
    )
    assert told == expected
    assert given.items() <= variables.items()  # and what imports have set
    assert forked.returncode == started.returncode == 3


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
