"""A command works on where its screen is gone or cannot show a character."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vqtrain.cli import main
from vqtrain.ops.screen import Screen, lasting_screen


@pytest.fixture
def unread() -> Iterator[io.TextIOWrapper]:
    """The writing end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        """Fail."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text)


def test_a_pipe_that_nobody_reads_is_written_to_no_more(unread: io.TextIOWrapper) -> None:
    screen = Screen(unread)
    for _ in range(2):
        screen.write("a line\n")
        screen.flush()
    assert not screen.isatty()
    os.write(unread.fileno(), b"of another library")
    unread.flush()  # as the interpreter does at its end


@pytest.mark.parametrize("stream", [None, Full()])
def test_a_stream_that_is_closed_or_full_is_no_error(stream: io.StringIO | None) -> None:
    screen = Screen(stream)
    assert [screen.write("a"), screen.write("b")] == [1, 1]
    screen.flush()
    assert (screen.encoding, screen.isatty()) == ("utf-8", False)


def test_a_character_that_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w", encoding="ascii") as file:
        Screen(file).write("gr\u00f6\u00dfe \udcff\n")
    assert (tmp_path / "shown").read_bytes() == rb"gr\xf6\xdfe \udcff" + b"\n"


def test_the_streams_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with lasting_screen():
        sys.stdout.write("a")
    assert sys.stdout is out
    assert out.getvalue() == "a"


@pytest.mark.parametrize("word", ["train", "pack"])
def test_a_command_works_to_its_end_without_a_screen(
    word: str,
    tiny: list[str],
    pictures: Path,
    tmp_path: Path,
    unread: io.TextIOWrapper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    monkeypatch.setattr(sys, "stderr", unread)
    words = {
        "train": [
            *tiny,
            f"run_dir={tmp_path / 'out'}",
            "trainer.max_steps=1",
            "name=gr\u00f6\u00dfe",
        ],
        "pack": [f"images={pictures}", f"out={tmp_path / 'out'}", "num_workers=0"],
    }
    assert main([word, *words[word]]) == 0
    last = {"train": "report.html", "pack": "index.json"}
    assert (tmp_path / "out" / last[word]).is_file()
