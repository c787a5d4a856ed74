"""Whether a speed repeats: compared with the last run with the same work on this machine.

Two rounds within a run do not show it: the speed of many machines changes from process to process.
"""

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b

import torch

from vqtrain.data.cache import cache_folder, write_whole
from vqtrain.evaluation.cost import Cost, Timing, difference
from vqtrain.version import __version__


def compare_with_last(cost: Cost, *, work: Mapping[str, object]) -> Cost:
    """Compare each timing with that of the last run, and keep it for the next.

    What is kept can be deleted at any time, and a damaged file counts as none.

    Args:
        cost: Of this run.
        work: What else the time depends on, as plain data: the networks, the precision.

    Raises:
        DataError: If there is no folder for caches.
    """
    key = {
        "work": work,
        "device": cost.device,
        "machine": platform.node(),
        "image_size": cost.image_size,
        "vqtrain": __version__,
        "torch": torch.__version__,
    }
    digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
    path = cache_folder() / "speed" / f"{digest}.json"
    try:
        last = json.loads(path.read_bytes())
        timings = tuple(_compared(timing, last.get(_name(timing))) for timing in cost.timings)
    except (OSError, ValueError, TypeError, AttributeError):
        last, timings = {}, cost.timings
    last |= {_name(timing): timing.figures for timing in cost.timings}
    with suppress(OSError):  # a full disk costs the comparison and not the figures
        write_whole(path, json.dumps(last).encode())
    return replace(cost, timings=timings)


def _compared(timing: Timing, before: object) -> Timing:
    if before is None:
        return timing
    figures = tuple(float(value) for value in before)  # type: ignore[attr-defined]  # else TypeError
    if len(figures) != len(timing.figures) or min(figures) <= 0:
        raise ValueError(f"no figures of a timing: {before}")
    return replace(timing, change=difference(figures, timing.figures))


def _name(timing: Timing) -> str:
    return f"{timing.operation} {timing.batch_size}"
