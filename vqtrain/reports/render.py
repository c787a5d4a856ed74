"""From blocks to one self-contained HTML file."""

import time
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from vqtrain.drawing.html import STYLE, THEME, VIEWER, as_json, script_hash, source, template
from vqtrain.reports.blocks import Charts, Page, Viewer
from vqtrain.version import __version__

HERE = Path(__file__).parent
# Chart.js 4.6.1, MIT. To update it: npm pack chart.js, take dist/chart.umd.min.js, and leave out
# its last line, which names a file that is not included.
LIBRARY = "chart.umd.min.js"
TABLES, CHARTS = "tables.js", "charts.js"


def render(page: Page) -> str:
    """Write a page as HTML."""
    tables, charts = source(TABLES, HERE), source(CHARTS, HERE)
    scripts = [source(LIBRARY, HERE), "".join([source(THEME), tables, charts, source(VIEWER)])]
    data = data_of(page)
    return template("page.html", HERE).render(
        page=page,
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(source(STYLE)),
        scripts=[Markup(script) for script in scripts],
        # The browser runs these two scripts and no other, and fetches nothing.
        hashes=" ".join(map(script_hash, scripts)),
        data=Markup(as_json(data)),
    )


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
