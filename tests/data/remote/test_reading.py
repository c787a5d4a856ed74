"""Remote files are read whole and right, and once, also from servers that fail."""

import multiprocessing
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.remote import files, retry
from vqtrain.data.remote.files import find
from vqtrain.data.remote.reading import open_file, read, read_ahead
from vqtrain.data.remote.urls import shown
from vqtrain.errors import BadSampleError, DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 2500, dtype=np.uint8).tobytes()
ALL_RANGES = ["bytes=0-999", "bytes=1000-1999", "bytes=2000-2499"]


@pytest.fixture
def url(server, small_parts) -> str:  # noqa: ARG001 - a fixture cannot use usefixtures
    """Index a file of two and a half parts, and forget the requests that this took."""
    (file,) = find(server.put("a.bin", CONTENT))
    server.requests.clear()
    return file.text


def wait_until(is_so, *, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def parts_in(cache: Path) -> list[Path]:
    return [path for path in (cache / "parts").glob("??/*") if path.parent.name != "locks"]


def test_a_user_sees_the_url_alone(url, server):
    assert shown(url) == f"{server.url}/a.bin"
    assert shown("/data/#1.tar") == "/data/#1.tar"


@pytest.mark.parametrize("span", [(0, 10), (990, 20), (0, 2500), (1000, 1000), (2499, 1), (5, 0)])
def test_any_bytes_are_right(url, span):
    offset, size = span
    assert read(url, offset, size) == CONTENT[offset : offset + size]


def test_each_part_is_fetched_once(url, server):
    for offset in range(0, 2500, 100):
        assert read(url, offset, 100) == CONTENT[offset : offset + 100]
    assert [ranges for _, ranges in server.requests] == ALL_RANGES


def test_what_lies_behind_the_end_is_a_bad_sample(url):
    with pytest.raises(BadSampleError, match="the file ends inside this image"):
        read(url, 2400, 101)


@pytest.mark.parametrize("trouble", ["cut", 500, 503, 429])
def test_after_a_trouble_it_goes_on(url, server, trouble, capfd):
    server.troubles = [trouble] * 3
    assert read(url, 0, 2500) == CONTENT
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "/a.bin cannot be read: " in said
    assert len(server.requests) == 3 + 3


def test_a_server_that_is_gone_for_a_while_is_waited_for(url, server, monkeypatch):
    monkeypatch.setattr(retry, "RETRY_S", 10.0)
    server.troubles = [503] * 1000
    threading.Timer(0.2, server.troubles.clear).start()
    assert read(url, 0, 10) == CONTENT[:10]


def test_a_server_that_never_answers_ends_in_one_line(url, server, monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT_S", 0.1)
    files.file_system.cache_clear()
    server.troubles = ["hang"] * 100
    with pytest.raises(DataError, match=r"the server of http\S*/a\.bin does not answer: .*retried"):
        read(url, 0, 10)
    files.file_system.cache_clear()


def test_a_server_that_is_down_ends_in_one_line(url, server):
    server.troubles = [500] * 1000
    with pytest.raises(DataError, match=r"a\.bin does not answer: the server answers 500") as error:
        read(url, 0, 10)
    assert not isinstance(error.value, BadSampleError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"the file is gone from the server: http\S*/a\.bin$"),
        (403, r"no access to http\S*/a\.bin: the server answers 403"),
    ],
)
def test_what_is_gone_or_forbidden_is_asked_for_once(url, server, status, message):
    server.troubles = [status]
    with pytest.raises(BadSampleError, match=message):
        read(url, 0, 10)
    assert len(server.requests) == 1


@pytest.mark.parametrize("change", [CONTENT[::-1], CONTENT + b"x", CONTENT[:900], b""])
def test_a_file_that_changes_in_mid_run_is_a_bad_sample(url, server, change):
    server.put("a.bin", change)
    with pytest.raises(BadSampleError, match=r"has changed on the server .*/a\.bin$"):
        read(url, 1000, 10)


def test_parts_of_a_file_that_has_changed_are_not_used(url, server):
    assert read(url, 0, 2500) == CONTENT
    (file,) = find(server.put("a.bin", CONTENT[::-1]))
    assert read(file.text, 0, 2500) == CONTENT[::-1]


def test_a_damaged_part_is_fetched_again(url, cache):
    read(url, 0, 10)
    (part,) = parts_in(cache)
    part.write_bytes(b"short")
    assert read(url, 0, 10) == CONTENT[:10]


def test_without_a_cache_only_what_is_needed_is_fetched(url, server, monkeypatch):
    monkeypatch.setenv("VQTRAIN_CACHE", "/dev/null/nowhere")
    assert read(url, 0, 10) == CONTENT[:10]
    assert read(url, 990, 20) == CONTENT[990:1010]
    assert [ranges for _, ranges in server.requests][1:] == ["bytes=990-999", "bytes=1000-1009"]
    read_ahead(url, 0, 2500)
    assert len(server.requests) == 3


def test_parts_that_are_read_ahead_are_here(url, server, cache):
    read_ahead(url, 500, 1000)
    wait_until(lambda: len(parts_in(cache)) == 2)
    server.troubles = [500] * 1000
    assert read(url, 500, 1000) == CONTENT[500:1500]


def test_reading_ahead_is_silent_and_asks_once(url, server, capfd):
    server.troubles = [500]
    read_ahead(url, 0, 10)
    wait_until(lambda: len(server.requests) == 1)
    assert read(url, 0, 10) == CONTENT[:10]
    assert len(server.requests) == 2
    assert capfd.readouterr().err == ""


def test_a_file_is_read_from_end_to_end(url):
    with open_file(url) as file:
        assert file.read(1500) == CONTENT[:1500]
        file.seek(2000)
        assert file.read() == CONTENT[2000:]
        file.seek(10)
        assert file.read(5) == CONTENT[10:15]
        assert file.tell() == 15


def _read_all(url: str, cache: Path, results) -> None:
    read_ahead(url, 0, 2500)
    wait_until(lambda: len(parts_in(cache)) == 3)
    results.put(read(url, 0, 2500))


@pytest.mark.slow
def test_forks_share_the_parts(url, server, cache):
    read(url, 2400, 10)  # the connections and threads of the parent do not come along
    read_ahead(url, 2400, 10)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    forks = [context.Process(target=_read_all, args=(url, cache, results)) for _ in range(2)]
    for fork in forks:
        fork.start()
    assert [results.get(timeout=30) for _ in forks] == [CONTENT, CONTENT]
    for fork in forks:
        fork.join(timeout=10)
        assert fork.exitcode == 0
    assert sorted(ranges for _, ranges in server.requests) == ALL_RANGES


@pytest.mark.slow
def test_fresh_processes_share_the_parts(url, server, start_python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from vqtrain.data.remote import files, reading\n"
        "reading.PART_BYTES = files.PART_BYTES = 1000\n"
        "reading.read_ahead(sys.argv[1], 0, 1000)\n"
        "sys.stdout.buffer.write(reading.read(sys.argv[1], 0, 2500))"
    )
    processes = [start_python(script, url, stdout=subprocess.PIPE, text=False) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [CONTENT, CONTENT]
    assert sorted(ranges for _, ranges in server.requests) == ALL_RANGES


@pytest.mark.slow
def test_a_hanging_read_ahead_does_not_keep_a_process(url, server):
    server.troubles = ["hang"] * 10
    context = multiprocessing.get_context("fork")
    process = context.Process(target=read_ahead, args=(url, 0, 2500))
    process.start()
    process.join(timeout=10)
    assert process.exitcode == 0


@pytest.mark.usefixtures("small_parts")
def test_s3_is_read_and_its_changes_are_seen(s3):
    (file,) = find(s3("a.bin", CONTENT))
    assert file.url == "s3://photos/a.bin"
    assert read(file.text, 900, 200) == CONTENT[900:1100]
    s3("a.bin", CONTENT[::-1])
    with pytest.raises(BadSampleError, match="has changed on the server"):
        read(file.text, 2000, 10)
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
