"""How far a long command is, on a terminal and in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

INTERVAL_S = 15.0
# Of what is being written, samples done so far, samples in all.
Tell = Callable[[str, int, int], None]


@contextmanager
def shown_progress(
    console: Console, first: str, noun: str = "image"
) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal, and elsewhere a line for each shard and every few seconds.

    Args:
        console: Where to.
        first: What is done before the first shard.
        noun: One of the samples.

    Yields:
        A function of what is being written, samples done so far, samples in all.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(first, total=None)
            yield lambda shard, done, total: bar.update(
                task, description=shard, completed=done, total=total or None
            )
        return
    said, said_at = ("", 0, 0), 0.0
    latest = said

    def say() -> None:
        nonlocal said, said_at
        shard, done, total = latest
        console.print(f"{shard}: {done:,} of {total:,} {noun}s are done", markup=False)
        said, said_at = latest, time.monotonic()

    def tell(shard: str, done: int, total: int) -> None:
        nonlocal latest
        latest = (shard, done, total)
        if shard != said[0] or time.monotonic() - said_at > INTERVAL_S:
            say()

    yield tell
    if latest != said:
        say()


def under(word: str, progress: Tell) -> Tell:
    """Show progress under one word, whichever shard is being written."""
    return lambda _shard, done, total: progress(word, done, total)
