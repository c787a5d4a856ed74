"""Tars from commands: their pictures, what can be wrong with them, and the processes behind."""

import gzip
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import pytest

from vqtrain.data.loading.commands import Shard, end_commands
from vqtrain.data.media import IMAGE

WriteTar = Callable[[Path, dict[str, bytes]], Path]


def read(command: str) -> tuple[dict[str, bytes], str | None]:
    shard = Shard(command, IMAGE)
    return dict(shard.samples()), shard.reason


def wait_for(file: Path) -> int:
    """Return the number that a command has written down."""
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(file.read_text())


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not a zombie of somebody else."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def tar(tmp_path: Path, write_tar: WriteTar) -> Path:
    """Pictures of 1,000 bytes: three headers and two blocks each make 4,608 bytes."""
    return write_tar(tmp_path / "a tar.tar", {f"{i}.png": bytes([i]) * 1000 for i in range(3)})


def test_the_first_picture_of_each_sample_is_taken(tmp_path, write_tar):
    members = {"a/0.cls": b"7", "a/0.jpg": b"first", "a/0.seg.png": b"x", "./a/1.b.PNG": b"second"}
    members |= {"a/2.txt": b"no picture", ".hidden/3.png": b"x", "a/._4.png": b"x", "5.npy": b"npy"}
    tar = write_tar(tmp_path / "x.tar", members)
    expected = {"a/0": b"first", "a/1": b"second", "5": b"npy"}
    assert read(f"cat {tar}") == (expected, None)


def test_everything_is_read_also_a_second_tar(tar):
    shard = Shard(f"cat {quote(str(tar))} {quote(str(tar))}", IMAGE)
    assert [key for key, _ in shard.samples()] == ["0", "1", "2", "0", "1", "2"]
    assert shard.reason is None


def test_folders_that_look_like_metadata_are_read(tmp_path, write_tar):
    tar = write_tar(tmp_path / "x.tar", {"__train__/0.png": b"x", "./v1.0/1.png": b"y"})
    assert read(f"cat {tar}") == ({"__train__/0": b"x", "v1.0/1": b"y"}, None)


def test_a_reason_is_the_same_in_each_run(tar):
    (one, two) = (read(f"head -c 3000 {quote(str(tar))}")[1] for _ in range(2))
    assert one == two == "the tar is cut off or damaged (unexpected end of data)"


def test_a_tar_without_an_end_is_whole(tar):
    # 3 x (512 + 1,024) bytes, and nothing of the zeros that follow.
    samples, reason = read(f"head -c 4608 {quote(str(tar))}")
    assert (list(samples), reason) == (["0", "1", "2"], None)


@pytest.mark.parametrize(("size", "found"), [(2000, 1), (1700, 1), (3584, 2), (3000, 1), (600, 0)])
def test_of_a_tar_that_is_cut_off_the_beginning_is_taken(tar, size, found):
    samples, reason = read(f"head -c {size} {quote(str(tar))}")
    assert list(samples) == ["0", "1", "2"][:found]
    assert samples == {str(i): bytes([i]) * 1000 for i in range(found)}
    assert reason is not None
    assert reason.startswith("the tar is cut off or damaged (")


def test_a_damaged_header_is_no_end(tar):
    content = bytearray(tar.read_bytes())
    content[1536:2048] = b"x" * 512
    tar.write_bytes(content)
    samples, reason = read(f"cat {quote(str(tar))}")
    assert list(samples) == ["0"]
    assert reason is not None
    assert reason.startswith("the tar is cut off or damaged (")


def test_what_is_no_tar_is_said(tar, tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(tar.read_bytes()))
    for command in (f"cat {tmp_path}/x.gz", "true", "echo hello"):
        samples, reason = read(command)
        assert samples == {}
        assert reason is not None
        assert reason.startswith("its output is not an uncompressed tar (")


def test_a_command_that_fails_is_noticed_after_a_whole_tar(tar):
    name = quote(str(tar))
    samples, reason = read(f"cat {name}; echo first >&2; echo 'not found: b' >&2; exit 3")
    assert (len(samples), reason) == (3, "exit code 3: not found: b")
    samples, reason = read(f"head -c 2000 {name}; exit 4")
    assert (len(samples), reason) == (1, "exit code 4")
    assert read("exit 5") == ({}, "exit code 5")


def test_a_shard_that_is_left_early_ends_with_all_it_started(tar, tmp_path):
    note = tmp_path / "pid"
    shell = tmp_path / "shell"
    command = f"echo $$ > {shell}; cat {quote(str(tar))}; sleep 1000 & echo $! > {note}; wait"
    samples = Shard(command, IMAGE).samples()
    assert next(samples)[0] == "0"
    pid = wait_for(note)
    assert is_running(pid)
    samples.close()
    assert_gone(pid)
    with pytest.raises(ChildProcessError):  # nor is there a zombie
        os.waitpid(wait_for(shell), os.WNOHANG)


def test_a_damaged_tar_is_not_waited_for(tmp_path):
    note = tmp_path / "pid"
    garbage = "x" * 2048
    samples, reason = read(f"echo $$ > {note}; echo {garbage}; exec yes")
    assert samples == {}
    assert reason is not None
    assert_gone(wait_for(note))


def test_commands_end_with_this_process(tar, tmp_path):
    note = tmp_path / "pid"
    samples = Shard(f"echo $$ > {note}; cat {quote(str(tar))}; sleep 1000", IMAGE).samples()
    next(samples)
    end_commands()
    assert_gone(wait_for(note))


def test_ctrl_c_does_not_reach_a_command(tar, tmp_path):
    note = tmp_path / "session"
    samples = Shard(f"cut -d' ' -f6 /proc/$$/stat > {note}; cat {quote(str(tar))}", IMAGE).samples()
    next(samples)
    assert wait_for(note) != os.getsid(0)


def test_a_fork_leaves_the_commands_of_its_parent_alone(tar, tmp_path):
    note = tmp_path / "pid"
    samples = Shard(f"echo $$ > {note}; cat {quote(str(tar))}; exec sleep 1000", IMAGE).samples()
    next(samples)
    child = os.fork()
    if child == 0:
        samples.close()
        end_commands()
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.05)
    assert is_running(wait_for(note))


def test_headers_are_forgotten(tmp_path, write_tar):
    tar = write_tar(tmp_path / "x.tar", {f"{i}.png": b"x" for i in range(50)})
    opened = []
    original = tarfile.TarFile.next

    def spy(self: tarfile.TarFile) -> tarfile.TarInfo | None:
        opened.append(len(self.members))  # type: ignore[attr-defined]  # not declared
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile.TarFile, "next", spy)
        read(f"cat {tar}")
    assert max(opened) <= 1
