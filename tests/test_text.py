"""What is published names no machine and no package index: both are the reader's own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {"", ".md", ".py", ".sh", ".toml", ".yaml"}
HIDDEN = [".dockerignore", ".gitignore", ".pre-commit-config.yaml"]
FOLDERS = [".ci", "configs", "docs", "scripts", "tests", "vqtrain"]
FOUND = [
    *(ROOT / name for name in HIDDEN),
    *ROOT.glob("[!.]*"),
    *(path for name in FOLDERS for path in (ROOT / name).rglob("*")),
]
FILES = sorted(path for path in FOUND if path.is_file() and path.suffix in SUFFIXES)
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:opt|root|tmp|work)/")
PACKAGE_INDEX = re.compile(
    r"pypi\.org|pythonhosted\.org|pytorch\.org/whl|index[-_]url|find[-_]links"
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_files_to_read_are_found() -> None:
    assert {"Dockerfile", "Makefile", ".ci/run", "tests/test_text.py"} <= set(map(name_of, FILES))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_names_no_machine_and_no_package_index(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert MACHINE_PATH.findall(text) + PACKAGE_INDEX.findall(text) == []
