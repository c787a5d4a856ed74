"""What pages in HTML share: their style and scripts, and what keeps them to themselves."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

HERE = Path(__file__).parent
STYLE = "page.css"
# The first is for every page; the second draws two versions of an image under a divider.
THEME, VIEWER = "theme.js", "viewer.js"


@cache
def source(name: str, folder: Path = HERE) -> str:
    """Read a file of a page.

    Args:
        name: Of the file.
        folder: Where it is, by default with those that all pages share.
    """
    return (folder / name).read_text(encoding="utf-8")


@cache
def template(name: str, folder: Path) -> Template:
    """Load the template of a page, once, which escapes what it is given.

    Args:
        name: Of the file.
        folder: Where it is.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def as_json(data: object) -> str:
    """Write data for a script element, escaped so that no text in it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
