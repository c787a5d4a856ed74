"""Training batches from servers that are killed in the middle of an epoch and come back."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from vqtrain.data.loading.batches import Batch, TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.remote import files, retry
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.find import open_samples

pytestmark = [
    # Python 3.12 and later warn of a fork beside torch's threads, which workers do not touch.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.slow,
]

SETTINGS = ImageData(
    train="-",
    val="-",
    image_size=8,
    channels=3,
    crop="random_resized",
    flip=True,
    batch_size=5,
    num_workers=2,
    sampling="permuted",
    range=None,
    background="white",
    max_bad_fraction=0.01,
)

# Files of the working directory by HTTP, also parts of them.
HTTP = """
import re, sys
from http.server import ThreadingHTTPServer, BaseHTTPRequestHandler
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        file = Path(self.path.lstrip("/"))
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers.get("Range", ""))
        total = len(content)
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), total - 1)
            content = content[first:last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# moto forgets its files when it ends, so it takes them from the working directory each time.
S3 = """
import sys
from pathlib import Path
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import main
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
backend.create_bucket("photos", "us-east-1")
for file in Path().glob("*.tar"):
    backend.put_object("photos", file.name, file.read_bytes())
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


class Server:
    """A server in a process of its own, on one port of this machine."""

    def __init__(self, script: str, folder: Path) -> None:
        self.script, self.folder = script, folder
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.script, str(self.port)],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    started: list[Server] = []

    def start(script: str) -> Server:
        started.append(Server(script, tmp_path))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(autouse=True)
def shards(tmp_path: Path, encode: Callable[..., bytes], write_tar: Callable[..., Path]) -> None:
    """Write two shards, of 40 and 10 pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 12, 12, 3), dtype=np.uint8)
    members = {f"{number:03d}.png": encode(noise[number]) for number in range(50)}
    names = list(members)
    for name, part in {"0.tar": names[:40], "1.tar": names[40:]}.items():
        write_tar(tmp_path / name, {key: members[key] for key in part})


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the server for every image, and be patient."""
    monkeypatch.setenv("VQTRAIN_CACHE_GB", "0")
    monkeypatch.setattr(retry, "RETRY_S", 60.0)


def batches_of(images: str, between: Callable[[], None]) -> list[Batch]:
    """Load two epochs of batches; after two of them something happens."""
    index = open_samples(images, role="training")
    place = {"seed": 1, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    batches = iter(
        Loader(TrainingBatches(index, settings=SETTINGS, **place), num_workers=SETTINGS.num_workers)
    )
    first = list(islice(batches, 2))
    between()
    return [*first, *islice(batches, 18)]


def check(found: list[Batch], expected: list[Batch]) -> None:
    """Nothing is lost or repeated, and every pixel is right."""
    keys = [key for batch in found for key in batch.keys]
    assert not any(batch.faults for batch in found)
    for start in (0, 50):
        assert sorted(keys[start : start + 50]) == [f"{number:03d}" for number in range(50)]
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys == other.keys
        assert batch.samples.equal(other.samples)


def test_http(serve: Callable[[str], Server], tmp_path: Path) -> None:
    server = serve(HTTP)
    started_again = Timer(1.0, server.start)

    def outage() -> None:
        server.kill()
        started_again.start()

    found = batches_of(f"{server.url}/{{0,1}}.tar", outage)
    started_again.join()
    check(found, batches_of(str(tmp_path / "{0,1}.tar"), lambda: None))


def test_s3(
    serve: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = serve(S3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)

    files.file_system.cache_clear()  # it keeps the address of another test's server
    started_again = Timer(1.0, server.start)

    def outage() -> None:
        server.kill()
        started_again.start()

    found = batches_of("s3://photos/{0,1}.tar", outage)
    started_again.join()
    files.file_system.cache_clear()
    check(found, batches_of(str(tmp_path / "{0,1}.tar"), lambda: None))
