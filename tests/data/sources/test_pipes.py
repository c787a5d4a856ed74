"""What a command writes is kept until the process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from vqtrain.data.sources.pipes import spool
from vqtrain.errors import DataError


def test_the_output_of_a_command_is_kept():
    first, second = spool("printf one"), spool("printf two")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert first.suffix == ".tar"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo a >&2; echo b >&2; exit 7", "pipe:echo .* failed with exit code 7: b$"),
        ("exit 3", "exit code 3: no output$"),
    ],
)
def test_a_command_that_fails_is_named(command, message):
    with pytest.raises(DataError, match=message):
        spool(command)


def test_at_the_end_of_the_process_it_is_removed():
    script = "from vqtrain.data.sources.pipes import spool; print(spool('printf one'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    path = Path(done.stdout.strip())
    assert path.name == "pipe-00000.tar"
    assert not path.parent.exists()
