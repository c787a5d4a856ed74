"""A vqtrain that starts at once: commands that sleep, fail, or tell what they see."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import vqtrain
from vqtrain.launchers.base import Ended, Job, Launcher

PROGRAM = """
import os, signal, sys, time
word, *rest = sys.argv[1:]
if word == "say":
    print("vqtrain:", os.environ.get("CUDA_VISIBLE_DEVICES"), os.getcwd(), *rest)
elif word == "fail":
    print("vqtrain: it broke", file=sys.stderr)
    sys.exit(int(rest[0]))
elif word == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif word in ("sleep", "ignore", "obey"):
    if word == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if word == "obey":
        signal.signal(signal.SIGTERM, lambda *_: (open(rest[0] + ".end", "w"), sys.exit(143)))
    with open(rest[0], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
elif word == "span":
    began = time.time()
    time.sleep(0.5)
    print(began, time.time())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with that vqtrain, which the Python that is started there finds first."""
    package = tmp_path / "vqtrain"
    shutil.copytree(
        Path(vqtrain.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "__main__.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    """Say whether there is a process of that number which is no zombie."""

    def look(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"

    return look


@pytest.fixture
def launched(here: Path) -> Callable[..., list[Ended]]:
    """Launch each command as a job, named by its number; return how they ended, in their order."""

    def launch(
        launcher: Launcher, *commands: list[str], tick: Callable[[], None] = lambda: None
    ) -> list[Ended]:
        ends: dict[str, Ended] = {}
        launcher.launch(
            [Job(name=str(number), commands=[each]) for number, each in enumerate(commands)],
            logs=here / "logs",
            tick=tick,
            done=lambda job, end: ends.update({job.name: end}),
        )
        return [ends[str(number)] for number in range(len(commands))]

    return launch
