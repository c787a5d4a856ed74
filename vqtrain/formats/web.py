"""A web page that encodes, shows and decodes pictures, and edits their tokens."""

import base64
import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.onnx_graphs import DECODER, ENCODER, check_ready, write_graphs
from vqtrain.formats.parts.pictures import check_pictures
from vqtrain.formats.parts.web_page import Part, render
from vqtrain.formats.parts.web_readme import LICENSE, README
from vqtrain.formats.parts.web_runtime import SCRIPT, WASM, runtime_files
from vqtrain.tokenizer.model import Tokenizer

INDEX = "index.html"


@final
class Web(Exporter):
    """A page with its graphs and the runtime that computes them, for any static server.

    Args:
        single_file: Whether all of it is one HTML file, which also opens from a disk.
        precision: Of the networks, ``float32`` or ``float16``, as in ``ONNX``.
        runtime: Path of the npm package of onnxruntime-web; None for the one in vqtrain's cache,
            which is downloaded once from npm's registry.

    Raises:
        ConfigError: If there is no such precision, or a package is missing.
    """

    def __init__(
        self, *, single_file: bool = False, precision: str = "float32", runtime: str | None = None
    ) -> None:
        check_ready("web", precision)
        self.single_file, self.precision, self.runtime = single_file, precision, runtime

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what a page cannot show."""
        check_pictures(tokenizer, "format=web")

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the graphs, compare them, and write the page around them."""
        self.check(tokenizer)
        runtime = runtime_files(self.runtime)
        if self.single_file:
            with tempfile.TemporaryDirectory() as folder:
                agreement = write_graphs(
                    tokenizer, Path(folder), precision=self.precision, images=images
                )
                graphs = {name: Path(folder, name).read_bytes() for name in (ENCODER, DECODER)}
            packed = {name: gzip.compress(graph, 6, mtime=0) for name, graph in graphs.items()}
            packed |= {WASM: runtime[WASM], SCRIPT: gzip.compress(runtime[SCRIPT], 6, mtime=0)}
            parts = {
                name: Part(None, base64.b64encode(content).decode())
                for name, content in packed.items()
            }
            page = render(tokenizer, parts, notice=LICENSE)
        else:
            agreement = write_graphs(tokenizer, out, precision=self.precision, images=images)
            (out / "runtime").mkdir()
            for name, content in {**runtime, "LICENSE": LICENSE.encode()}.items():
                (out / "runtime" / name).write_bytes(content)
            (out / "README.md").write_text(README, encoding="utf-8")
            names = {ENCODER: ENCODER, DECODER: DECODER}
            names |= {name: f"./runtime/{name}" for name in runtime}
            page = render(tokenizer, {name: Part(url) for name, url in names.items()})
        (out / INDEX).write_text(page, encoding="utf-8")
        return agreement

    def example(self, out: Path) -> str:
        """Return lines of Python that open the page."""
        if self.single_file:
            url = (out / INDEX).absolute().as_uri()
            return f"import webbrowser\nwebbrowser.open({url!r})"
        return (
            "from functools import partial\n"
            "from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer\n"
            f"handler = partial(SimpleHTTPRequestHandler, directory={str(out)!r})\n"
            'ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()'
        )
