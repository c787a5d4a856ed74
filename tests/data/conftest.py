"""Tiny tars and folders of pictures, servers of files, and a cache folder of the test's own."""

import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.remote import files, parts, reading, retry
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import scan_tar


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VQTRAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Encode an array or a picture; by default as PNG."""

    def encode(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def write_tar() -> Callable[[Path, dict[str, bytes]], Path]:
    """Write a tar with these members."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def sparse_member() -> Callable[[str, str], bytes]:
    """Write a member of 4,096 bytes with a hole, as ``tar -S`` does in each of its formats."""
    content = b"a" * 512 + b"z" * 512  # the beginning and the end; in between are zeros

    def write(name: str, form: str) -> bytes:
        if form == "gnu":
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), tarfile.GNUTYPE_SPARSE
            header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
            regions = b"".join(b"%011o\0" % number for number in (0, 512, 3584, 512))
            header[386 : 386 + 48], header[483:495] = regions, b"%011o\0" % 4096
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            return bytes(header) + content
        info, regions = tarfile.TarInfo(f"GNUSparseFile.0/{name}"), b""
        if form == "0.1":
            keys = {"size": "4096", "numblocks": "2", "map": "0,512,3584,512"}
        else:
            keys = {"major": "1", "minor": "0", "realsize": "4096"}
            regions = b"2\n0\n512\n3584\n512\n".ljust(512, b"\0")
        info.size = len(regions + content)
        keys["name"] = name
        info.pax_headers = {f"GNU.sparse.{key}": value for key, value in keys.items()}
        return info.tobuf(tarfile.PAX_FORMAT) + regions + content

    return write


@pytest.fixture
def numbered(tmp_path, encode, write_tar) -> Callable[[int], SampleIndex]:
    """Index n noisy 8 x 8 px pictures with the keys 000, 001 and so on."""

    def make(n: int) -> SampleIndex:
        noise = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        members = {f"{i:03d}.png": encode(noise[i]) for i in range(n)}
        return scan_tar(write_tar(tmp_path / f"numbered-{n}.tar", members))

    return make


class FileServer(ThreadingHTTPServer):
    """An HTTP server of files in memory, with parts of files and with bad days.

    Attributes:
        files: Content by path, without the leading slash.
        requests: Path and range of each request answered, as they came.
        troubles: What to do with the next requests instead of answering them: ``cut`` sends half
            and drops the connection, ``hang`` says nothing, a number is sent as the status.
        has_ranges: Whether it knows parts of files.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.troubles: list[str | int] = []
        self.has_ranges = True
        self.closing = threading.Event()
        self.lock = threading.Lock()

    def put(self, name: str, content: bytes) -> str:
        """Hold a file, and say its URL."""
        self.files[name] = content
        return f"{self.url}/{name}"

    def count(self, name: str) -> int:
        """Count the requests for a file."""
        return sum(path == name for path, _ in self.requests)

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing: clients of these tests hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with self.server.lock:
            self.server.requests.append((name, self.headers.get("Range", "")))
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
        content = self.server.files.get(name)
        if trouble == "hang":
            self.server.closing.wait(30)
            self.close_connection = True
            return
        if isinstance(trouble, int) or content is None:
            self.send_response(trouble if isinstance(trouble, int) else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total = len(content)
        if wanted and self.server.has_ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), total - 1)
            is_there = first < total
            self.send_response(206 if is_there else 416)
            self.send_header(
                "Content-Range", f"bytes {first}-{last}/{total}" if is_there else f"bytes */{total}"
            )
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{hash(self.server.files[name])}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if trouble == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for servers in hundredths of seconds."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(retry, "RETRY_S", 0.3)
    monkeypatch.setattr(retry, "FIRST_RETRY_S", 0.3)
    monkeypatch.setattr(retry, "_last_notice_s", -retry.NOTICE_S)
    monkeypatch.setattr(parts._State, "paused_until_s", -1.0)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut files into parts of 1,000 bytes."""
    for module in (reading, files):
        monkeypatch.setattr(module, "PART_BYTES", 1000)
    return 1000


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], str]]:
    """Run an S3 server with the bucket ``photos``; call it to put a file there."""
    from botocore.session import Session
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files.file_system.cache_clear()  # it keeps the address of another test's server
    client = Session().create_client("s3")
    client.create_bucket(Bucket="photos")

    def put(name: str, content: bytes) -> str:
        client.put_object(Bucket="photos", Key=name, Body=content)
        return f"s3://photos/{name}"

    yield put
    client.close()
    server.stop()
    files.file_system.cache_clear()
