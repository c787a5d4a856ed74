"""From blocks to one self-contained HTML file."""

import base64
import hashlib
import json
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from vqtrain.reports.blocks import Charts, Page, Viewer
from vqtrain.version import __version__

HERE = Path(__file__).parent
STYLE = "page.css"
# Chart.js 4.6.1, MIT. To update it: npm pack chart.js, take dist/chart.umd.min.js, and leave out
# its last line, which names a file that is not included.
LIBRARY = "chart.umd.min.js"
SCRIPTS = ("theme.js", "tables.js", "charts.js", "viewer.js")


def render(page: Page) -> str:
    """Write a page as HTML."""
    scripts = [source(LIBRARY), "".join(map(source, SCRIPTS))]
    data = data_of(page)
    return template().render(
        page=page,
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(source(STYLE)),
        scripts=[Markup(script) for script in scripts],
        # The browser runs these two scripts and no other, and fetches nothing.
        hashes=" ".join(map(script_hash, scripts)),
        data=Markup(as_json(data)),
    )


@cache
def template() -> Template:
    """Load the template, once."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@cache
def source(name: str) -> str:
    """Read a file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def drawn(page: Page) -> list[Charts | Viewer]:
    """List the blocks that scripts draw, in the order in which the template numbers them."""
    blocks = [block for section in page.sections for block in section.blocks]
    return [block for block in blocks if isinstance(block, Charts | Viewer)]


def data_of(page: Page) -> dict[str, object]:
    """Collect what the scripts draw."""
    blocks: list[object] = []
    for block in drawn(page):
        if isinstance(block, Charts):
            blocks.append(list(block.charts))
            continue
        items = [asdict(item) for item in block.items]
        blocks.append({"label": block.label, "right": block.right, "items": items})
    return {"blocks": blocks, "images": list(page.images)}


def as_json(data: object) -> str:
    """Write data for a script element, escaped so that no text in it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
