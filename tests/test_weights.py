"""Where pretrained weights are found, with a server on the loopback device for downloads."""

import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from vqtrain import weights
from vqtrain.errors import WeightsError
from vqtrain.weights import (
    KNOWN,
    KnownFile,
    cache_path,
    find,
    lpips_heads,
    read,
    read_script,
    sha256,
)

CONTENT = b"the weights of a network" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(ThreadingHTTPServer):
    """Serves ``CONTENT`` as /file, and notes what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    def url(self, path: str) -> str:
        """Return where a path is served."""
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers slowly, so that whoever else wants the file comes in the meantime."""

    server: Server

    def do_GET(self) -> None:
        """Send the file, half of it, or an error."""
        self.server.requests.append(self.path)
        time.sleep(0.2)
        self.send_response(200 if self.path.startswith("/file") else 404)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:500] if self.path == "/file-cut-short" else CONTENT)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say where the file ``vgg`` is published."""

    def publish(url: str, sha256: str = DIGEST) -> None:
        monkeypatch.setitem(KNOWN, "vgg", KnownFile(name="net.pth", url=url, sha256=sha256))

    return publish


@pytest.fixture
def vgg() -> dict[str, torch.Tensor]:
    return {"features.0.weight": torch.randn(4, 3), "features.0.bias": torch.randn(4)}


def test_the_published_names_carry_their_hash() -> None:
    names = ["alex", "clean_fid", "convnext", "inception", "pytorch_fid", "resnet50", "squeeze"]
    names += ["vgg"]
    # Of the others no hash is published, and so they are not downloaded.
    assert sorted(name for name in KNOWN if KNOWN[name].sha256) == names
    for known in (KNOWN[name] for name in names):
        assert known.url.endswith(f"/{known.name}")
        if known.name.endswith(".pth"):
            assert known.name.endswith(f"-{known.sha256}.pth")


def test_the_name_and_place_of_each_file_are_those_of_its_library() -> None:
    from cleanfid.downloads_helper import inception_url
    from pytorch_fid.inception import FID_WEIGHTS_URL
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert KNOWN["pytorch_fid"].url == FID_WEIGHTS_URL
    assert KNOWN["clean_fid"].url == inception_url
    assert KNOWN["inception"].url == URL_INCEPTION_V3


def test_the_cache_is_that_of_torch(torch_home: Path) -> None:
    assert cache_path("vgg") == torch_home / "hub/checkpoints/vgg16-397923af.pth"


def test_a_given_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_path("vgg").parent.mkdir(parents=True)
    cache_path("vgg").touch()
    (tmp_path / "mine.pth").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("vgg", str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"
    assert find("vgg", "~/mine.pth") == tmp_path / "mine.pth"


def test_the_cache_comes_second(publish: Callable[..., None]) -> None:
    publish("http://127.0.0.1:9/file")
    cache_path("vgg").parent.mkdir(parents=True)
    cache_path("vgg").touch()
    assert find("vgg", None) == cache_path("vgg")


@pytest.mark.parametrize("given", ["no/such.pth", "", ".", "x" * 300, "~nobody-of-this-name/a.pth"])
def test_a_given_path_without_a_file_is_refused(given: str) -> None:
    with pytest.raises(WeightsError, match=r"^weights\.alex .*") as caught:
        find("alex", given)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_nowhere_is_downloaded_once(
    server: Server, publish: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(server.url("/file"))
    file = find("vgg", None)
    assert file.read_bytes() == CONTENT
    said = capsys.readouterr()
    assert f"downloading net.pth from {server.url('/file')} to {cache_path('vgg')}\n" in said.err
    assert said.out == ""
    assert find("vgg", None) == file
    assert server.requests == ["/file"]


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("/file", "00000000", 'invalid hash value .expected "00000000"'),
        ("/file-cut-short", DIGEST, "invalid hash value|IncompleteRead"),
        ("/none", DIGEST, "HTTP Error 404"),
    ],
)
def test_a_download_that_fails_is_one_line_and_leaves_nothing(
    path: str, sha256: str, reason: str, server: Server, publish: Callable[..., None]
) -> None:
    publish(server.url(path), sha256)
    with pytest.raises(WeightsError, match=reason) as caught:
        find("vgg", None)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("net.pth", server.url(path), str(cache_path("vgg")), "weights.vgg=PATH"):
        assert part in message
    left = [file.name for file in cache_path("vgg").parent.iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_no_network_is_one_line(server: Server, publish: Callable[..., None]) -> None:
    publish(server.url("/file"))
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match=r"(?i)refused.*weights\.vgg=PATH") as caught:
        find("vgg", None)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_one_line(
    torch_home: Path, publish: Callable[..., None]
) -> None:
    publish("http://127.0.0.1:9/file")
    torch_home.touch()  # a file where a folder should be
    with pytest.raises(WeightsError, match=r"cannot download net\.pth .*weights\.vgg=PATH"):
        find("vgg", None)


FIND = """
import sys
from vqtrain.weights import KNOWN, KnownFile, find
KNOWN["vgg"] = KnownFile(name="net.pth", url=sys.argv[1], sha256=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print(find("vgg", None).read_bytes() == bytes.fromhex(sys.argv[3]))
"""


@pytest.mark.slow
def test_two_processes_at_once_download_once(
    server: Server, start_python: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FIND)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes = [
        start_python(script, server.url("/file"), DIGEST, CONTENT.hex(), **pipes) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True\n"] * 2
    assert server.requests == ["/file"]


@pytest.mark.parametrize("is_new", [True, False])
def test_both_formats_of_torch_are_read(
    is_new: bool, tmp_path: Path, vgg: dict[str, torch.Tensor]
) -> None:
    torch.save(vgg, tmp_path / "net.pth", _use_new_zipfile_serialization=is_new)
    torch.testing.assert_close(read(tmp_path / "net.pth"), vgg, rtol=0, atol=0)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(
    kept: float, is_new: bool, tmp_path: Path, vgg: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "net.pth"
    torch.save(vgg, file, _use_new_zipfile_serialization=is_new)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=r"^cannot read .*net\.pth: it is damaged") as caught:
        read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x80\x02", b"PK\x03\x04", b"\n"])
def test_a_foreign_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"^cannot read .*net\.pth"):
        read(tmp_path / "net.pth")


class Command:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_in_a_file_is_run(
    is_new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Command()}, "net.pth", _use_new_zipfile_serialization=is_new)
    Path("plain.pth").write_bytes(pickle.dumps({"weight": Command()}))
    for name in ("net.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"^cannot read {name}"):
            read(Path(name))
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    "content", [torch.ones(3), [torch.ones(3)], {"state_dict": {"a": torch.ones(3)}}, {0: 1}]
)
def test_other_contents_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="more than named tensors"):
        read(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_torchscript_is_loaded_with_its_program(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    torch.jit.script(network).save(str(tmp_path / "net.pt"))
    x = torch.randn(4, 3)
    torch.testing.assert_close(read_script(tmp_path / "net.pt")(x), network(x))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04"])
def test_what_is_no_torchscript_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"^cannot read .*net\.pt: it is damaged") as caught:
        read_script(tmp_path / "net.pt")
    assert "\n" not in str(caught.value)


def test_tensors_without_a_program_are_no_torchscript(
    tmp_path: Path, vgg: dict[str, torch.Tensor]
) -> None:
    torch.save(vgg, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="is not TorchScript"):
        read_script(tmp_path / "net.pth")


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert sha256(tmp_path / "net.pth") == hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(WeightsError, match=r"cannot read .*none\.pth: No such file"):
        sha256(tmp_path / "none.pth")


@pytest.mark.parametrize(("network", "ends"), [("vgg", 5), ("alex", 5), ("squeeze", 7)])
def test_the_heads_come_from_the_package(network: str, ends: int) -> None:
    heads = lpips_heads(network)
    assert sorted(heads) == [f"lin{number}.model.1.weight" for number in range(ends)]
    assert all(head.ndim == 4 and bool((head >= 0).all()) for head in heads.values())


def test_the_heads_need_no_import_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    assert lpips_heads("alex")
    assert "lpips" not in sys.modules


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="pip install lpips"):
        weights.lpips_heads("vgg")
