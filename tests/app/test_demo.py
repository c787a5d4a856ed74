"""``vqtrain demo`` and its server, which answers this machine alone."""

import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from vqtrain import Tokenizer
from vqtrain.app import demo
from vqtrain.app.parts.serving import serve
from vqtrain.cli import main
from vqtrain.formats import web


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a small tokenizer."""
    network = {"channels": 4, "block_channels": 2, "num_blocks": 0}
    Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {"in_channels": 3, "num_downsamplings": 2, **network},
        },
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={
            "kind": "vqvae",
            "arguments": {"out_channels": 3, "num_upsamplings": 2, **network},
        },
        channels=3,
        training={"name": "mine", "image_size": 16},
    ).eval().save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_the_page_is_served_and_gone_in_the_end(mine, monkeypatch, capsys) -> None:
    served = []

    def stop(folder: Path, port: int, started: Callable[[str], None]) -> None:
        served.extend([folder, (folder / "index.html").read_text(), port])
        started("http://127.0.0.1:1234")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "serve", stop)
    monkeypatch.setattr(web, "runtime_files", lambda _: {"ort.js": b"", "ort.wasm.gz": b""})
    assert main(["demo", f"tokenizer={mine}", "port=1234"]) == 130
    folder, page, port = served
    assert ("<h1>mine</h1>" in page, port) == (True, 1234)
    assert not folder.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("checked     8 images: ")
    assert lines[2] == "serving     http://127.0.0.1:1234 until Ctrl-C"


def test_a_server_answers_this_machine_under_its_own_name_alone(tmp_path) -> None:
    (tmp_path / "index.html").write_text("a page")
    found, began = [], threading.Event()

    def start(url: str) -> None:
        found.append(url)
        began.set()

    threading.Thread(target=serve, args=(tmp_path, 0, start), daemon=True).start()
    assert began.wait(10)
    [url] = found
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"a page"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    by_another_name = urllib.request.Request(url, headers={"Host": "a.stranger:80"})
    with pytest.raises(HTTPError, match="403"):
        urllib.request.urlopen(by_another_name)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name the tokenizer: vqtrain demo tokenizer=PATH"),
        (["tokenizer=yours"], "no tokenizer at yours"),
        (["tokenizer={mine}", "port=-1"], "port must be"),
        (["tokenizer={mine}", "port=eighty"], "port must be"),
        (["tokenizer={mine}", "prt=80"], "unknown key 'prt', did you mean 'port'?"),
        (["tokenizer={mine}", "runtime=none"], "runtime=none cannot be read"),
    ],
)
def test_a_mistake_is_told_in_a_line(words, reason, mine, capsys) -> None:
    assert main(["demo", *(word.replace("{mine}", str(mine)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), reason in error) == (1, True), error
