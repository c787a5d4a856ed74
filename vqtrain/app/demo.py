"""``vqtrain demo``: a page on this machine that encodes pictures and edits their tokens."""

import tempfile
from pathlib import Path
from typing import Annotated, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.compared import DEMO, samples_of
from vqtrain.app.parts.output import ending_in_order
from vqtrain.app.parts.serving import LOOPBACK, serving
from vqtrain.formats.parts.pictures import check_pictures
from vqtrain.formats.web import Web
from vqtrain.ranges import within
from vqtrain.tokenizer.model import Tokenizer


@final
class Demo(Command):
    """Serves a page."""

    def run(
        self,
        *,
        tokenizer: str,
        allow: list[str],
        port: Annotated[int, within(0, 65_535)],
        runtime: str | None,
    ) -> int:
        """Export the page into a temporary folder, and serve it until the command is ended."""
        page = Web(runtime=runtime)
        loaded = Tokenizer.from_pretrained(tokenizer, allow=allow)
        check_pictures(loaded, "vqtrain demo")
        console = Console(highlight=False, soft_wrap=True)
        with (
            ending_in_order(),
            tempfile.TemporaryDirectory(prefix="vqtrain-demo-") as name,
            serving(Path(name), port) as server,
        ):
            console.print("writing the page and comparing it with PyTorch ...", markup=False)
            agreement = page.export(loaded, Path(name), images=samples_of(loaded, DEMO))
            console.print(f"{'checked':<12}{agreement}", markup=False)
            url = f"http://{LOOPBACK}:{server.server_port}"
            console.print(f"{'serving':<12}{url} until Ctrl-C", markup=False)
            server.serve_forever()
        return 0
