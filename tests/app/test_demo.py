"""``vqtrain demo`` and its server, which answers this machine alone."""

import threading
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from vqtrain import Tokenizer
from vqtrain.app.parts.serving import serving
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

    def stop(server: ThreadingHTTPServer) -> None:
        folder = Path(server.RequestHandlerClass.keywords["directory"])
        served.extend([folder, (folder / "index.html").read_text(), server.server_port])
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", stop)
    monkeypatch.setattr(web, "runtime_files", lambda _: {"ort.js": b"", "ort.wasm.gz": b""})
    assert main(["demo", f"tokenizer={mine}", "port=0"]) == 130
    folder, page, port = served
    assert "<h1>mine</h1>" in page
    assert not folder.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("checked     8 images: ")
    assert lines[2] == f"serving     http://127.0.0.1:{port} until Ctrl-C"


def test_a_server_answers_this_machine_under_its_own_name_alone(mine, tmp_path, capsys) -> None:
    (tmp_path / "index.html").write_text("a page")
    with serving(tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"a page"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        by_another_name = urllib.request.Request(url, headers={"Host": "a.stranger:80"})
        with pytest.raises(HTTPError, match="403") as refused:
            urllib.request.urlopen(by_another_name)
        refused.value.close()
        # A port that is taken is said before the page is written.
        assert main(["demo", f"tokenizer={mine}", f"port={server.server_port}"]) == 2
        assert "cannot be used: Address already in use; give another" in capsys.readouterr().err
        server.shutdown()


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
