"""``vqtrain report``: one page of a run, a sweep or an evaluation."""

import sys
from collections.abc import Sequence

from vqtrain.app.keys import describe, read_keys
from vqtrain.app.output import ending_in_order, expand
from vqtrain.app.pictures import PICTURE_KEYS, find_device
from vqtrain.build import bind
from vqtrain.errors import ConfigError
from vqtrain.reports.page import LIMIT, write

KEYS: dict[str, tuple[object, str]] = {
    "path": (None, "folder of a run, a sweep or an evaluation"),
    "out": (None, "file of the page, which must not exist; null is in the folder"),
    "other": (None, "of a run, another run to compare the configuration with"),
    "limit": (LIMIT, "of a run, images that its tokenizer is measured on, at most"),
    "device": PICTURE_KEYS["device"],
}

USAGE = f"""usage: vqtrain report path=PATH [out=FILE] [key=value ...]

Writes one HTML file that needs nothing else and can be mailed: report.html in the folder of a run
or an evaluation, sweep.html in that of a sweep. There, it replaces the one before.

keys:
{describe(KEYS)}

options:
  --help   show this

examples:
  vqtrain report path=runs/demo/latest
  vqtrain report path=runs/mine/latest other=runs/demo/latest out=mine.html
"""


def main(words: Sequence[str]) -> int:
    """Write a page, or show the help."""
    values = read_keys("vqtrain report", words, KEYS)
    if values is None:
        sys.stdout.write(USAGE)
        return 0
    return bind(run, values, where="vqtrain report")


def run(*, path: str | None, out: str | None, other: str | None, limit: int, device: str) -> int:
    """Write a page, and say where it is; the arguments are those of ``KEYS``."""
    if not path:
        raise ConfigError("name the folder: vqtrain report path=runs/NAME/latest")
    with ending_in_order():
        file = write(
            expand(path),
            out=None if out is None else expand(out),
            other=None if other is None else expand(other),
            limit=limit,
            device=find_device(device),
        )
    sys.stdout.write(f"{file}\n")
    return 0
