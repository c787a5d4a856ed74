"""``vqtrain leaderboard``: tokenizers under one protocol, as a site of files."""

import sys
from typing import Annotated, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.leaderboard import ROWS, Machine, build, check_protocol
from vqtrain.app.parts.listing import read_listing
from vqtrain.app.parts.output import ending_in_order, folder_of, holds_something, refuse_inside
from vqtrain.data.media import IMAGE
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import require
from vqtrain.launchers.parts.ranks import WIDTH
from vqtrain.ops.paths import expand
from vqtrain.ranges import at_least


@final
class LeaderboardCommand(Command):
    """Measures the tokenizers of a list."""

    def run(
        self,
        *,
        tokenizers: str,
        out: str,
        allow: list[str],
        device: str,
        batch_size: Annotated[int, at_least(1)],
        num_workers: Annotated[int, at_least(0)] | None,
        devices: Annotated[int, at_least(1)],
    ) -> int:
        """Measure, and say what came of it."""
        require(
            ":" not in device,
            f"device={device}: each tokenizer takes the first GPUs that it sees; choose them by "
            "CUDA_VISIBLE_DEVICES, and give device=cuda",
        )
        listing = read_listing(expand(tokenizers))
        folder = folder_of(out)
        require(
            (folder / ROWS).is_dir() or not holds_something(folder),
            f"out={out} is not of vqtrain leaderboard: give another folder",
        )
        refuse_inside(folder, listing.protocol.images)
        machine = Machine(
            allow=allow,
            device=device,
            batch_size=batch_size,
            num_workers=num_workers,
            devices=devices,
        )
        index = open_samples(listing.protocol.images, IMAGE, role="validation")
        check_protocol(listing.protocol, machine)  # may download weights
        console = Console(
            highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH
        )
        with ending_in_order():
            return build(listing, folder, machine, index, console)
