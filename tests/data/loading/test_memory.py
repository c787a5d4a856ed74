"""A worker's memory does not grow with the samples that it has loaded."""

import multiprocessing
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.scan import scan_tar

# Of 20,000 samples, which are of so many bytes each that a leak of a hundredth of them would show.
SAMPLES, BATCH_SIZE = 20_000, 50
ALLOWED_BYTES = 4 * 2**20


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is its own, without what it shares."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.slow
# Python 3.12 and later warn of a fork beside torch's threads, which workers do not touch.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_memory_is_flat_over_many_samples(
    tmp_path: Path, encode: Callable[..., bytes], write_tar: Callable[..., Path]
) -> None:
    corners = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)
    members = {
        f"{number:04d}.jpg": encode(Image.fromarray(corners[number]).resize((96, 80)), "JPEG")
        for number in range(1000)
    }
    members["0500.jpg"] = b"not a picture"  # faults must not pile up either
    settings = ImageData(
        train="-",
        val="-",
        image_size=64,
        channels=3,
        crop="random_resized",
        flip=True,
        batch_size=BATCH_SIZE,
        num_workers=1,
        sampling="permuted",
        range=None,
        background="white",
        max_bad_fraction=0.01,
    )
    place = {"seed": 0, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    index = scan_tar(write_tar(tmp_path / "many.tar", members))
    others = multiprocessing.active_children()
    batches = iter(
        Loader(TrainingBatches(index, settings=settings, **place), num_workers=settings.num_workers)
    )
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(others)
    assert worker.pid is not None
    sizes = []
    for _ in range(5):
        for _ in islice(batches, SAMPLES // BATCH_SIZE // 5):
            pass
        sizes.append(resident_bytes(worker.pid))
    assert sizes[-1] - sizes[0] < ALLOWED_BYTES, sizes
