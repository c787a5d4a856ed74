"""A folder as a web site that this machine alone can see."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vqtrain.errors import ConfigError

LOOPBACK = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Gives files of a folder to browsers on this machine."""

    def end_headers(self) -> None:
        """Let the page use threads, and let nobody keep the files of a page that ends."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def parse_request(self) -> bool:
        """Refuse requests by another name: a page of someone else would read the files by its own.

        Such a page makes the browser take its name for this address.
        """
        if not super().parse_request():
            return False
        name = self.headers.get("Host", "").rpartition(":")[0]
        if name in (LOOPBACK, "localhost"):
            return True
        self.send_error(403, "this page is served to 127.0.0.1 and localhost alone")
        return False

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def serving(folder: Path, port: int) -> ThreadingHTTPServer:
    """Take a port for a folder; a context that gives it back, and serves by ``serve_forever``.

    Args:
        folder: What is served, with its ``index.html``; it may be filled later.
        port: Where; 0 for any that is free.

    Raises:
        ConfigError: If the port cannot be used.
    """
    try:
        return ThreadingHTTPServer((LOOPBACK, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise ConfigError(
            f"port={port} cannot be used: {error.strerror or error}; give another, or port=0 for "
            "any that is free"
        ) from error
