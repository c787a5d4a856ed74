"""``vqtrain report``: one page of a run, a sweep, an evaluation or a probe."""

import sys
from typing import Annotated, final

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order
from vqtrain.evaluation.settings import find_device
from vqtrain.ops.paths import expand
from vqtrain.ranges import at_least
from vqtrain.reports.page import write


@final
class Report(Command):
    """Writes a page."""

    def run(
        self,
        *,
        path: str,
        out: str | None,
        other: str | None,
        limit: Annotated[int, at_least(1)],
        device: str,
        allow: list[str],
    ) -> int:
        """Write a page, and say where it is."""
        with ending_in_order():
            file = write(
                expand(path),
                out=None if out is None else expand(out),
                other=None if other is None else expand(other),
                limit=limit,
                device=find_device(device),
                allow=allow,
            )
        sys.stdout.write(f"{file}\n")
        return 0
