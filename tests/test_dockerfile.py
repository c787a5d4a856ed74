"""The Dockerfile, checked without Docker: what it copies, builds, installs and runs."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Line(NamedTuple):
    """One instruction of the Dockerfile, continuation lines joined."""

    word: str
    arguments: str


def read_stages() -> list[list[Line]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [
        Line(*line.split(maxsplit=1)) for line in text.replace("\\\n", " ").splitlines() if line
    ]
    starts = [i for i, line in enumerate(lines) if line.word == "FROM"]
    return [lines[i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)]


def every(stage: list[Line], word: str) -> list[str]:
    return [line.arguments for line in stage if line.word == word]


def copied_from_the_repository(stage: list[Line]) -> list[str]:
    copies = [arguments.split() for arguments in every(stage, "COPY")]
    return [source for words in copies if words[0][:7] != "--from=" for source in words[:-1]]


BUILD, FINAL = read_stages()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the build stage makes from the files it copies, and from no others."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in copied_from_the_repository(BUILD):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    (command,) = [line for line in every(BUILD, "RUN") if "--wheel" in line]
    assert "/dist" in command
    subprocess.run(
        ["sh", "-c", command.replace("/dist", str(out))],
        cwd=source,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True,
    )
    (wheel,) = out.iterdir()
    return wheel


def test_the_final_stage_takes_only_the_wheel() -> None:
    assert every(BUILD, "FROM")[0].endswith(" AS build")
    assert copied_from_the_repository(FINAL) == []
    assert [copy.split()[0] for copy in every(FINAL, "COPY")] == ["--from=build"]


def test_everything_copied_exists_and_is_sent_to_docker() -> None:
    sources = copied_from_the_repository(BUILD)
    assert [name for name in sources if not (ROOT / name).exists()] == []
    sent = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    assert sorted(sources) == sorted(sent)


def test_the_entry_point_runs_as_a_user_who_owns_the_work_folder() -> None:
    words = [line.word for line in FINAL]
    assert words.count("USER") == 1
    assert words.index("USER") < words.index("ENTRYPOINT")
    (user,), (folder,) = every(FINAL, "USER"), every(FINAL, "WORKDIR")
    (account,) = [line for line in every(FINAL, "RUN") if "useradd" in line]
    assert f"--create-home --uid 1000 {user}" in account
    assert f"--owner={user} --group={user} {folder}" in account


def test_the_wheel_that_is_built_is_the_one_installed(built: Path) -> None:
    (copy,) = every(FINAL, "COPY")
    (install,) = [line for line in every(FINAL, "RUN") if "pip install" in line]
    _, source, folder = copy.split()
    assert fnmatch(f"/dist/{built.name}", source)
    assert fnmatch(f"{folder}{built.name}", install.split()[-1])


def test_the_entry_point_is_a_command_of_the_wheel(built: Path) -> None:
    (command,) = json.loads(every(FINAL, "ENTRYPOINT")[0])
    scripts = configparser.ConfigParser()
    with zipfile.ZipFile(built) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        scripts.read_string(archive.read(name).decode())
    assert command in scripts["console_scripts"]
