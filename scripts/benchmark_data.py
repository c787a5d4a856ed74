"""Times vqtrain's loader against loaders as tokenizer repositories and textbooks build them.

Each way has one worker process, over the same samples in tars; vqtrain also reads them from a pack
of raw pixels that is made first. The ways take turns, and the medians are compared. --threads
compares worker processes with threads instead: images/s, time to the first batch, memory of
all processes, and what a step of many small operations takes meanwhile. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_data.py photos-00000.tar photos-00001.tar
"""

import argparse
import io
import json
import math
import multiprocessing
import os
import random
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode

from vqtrain.data.decoding.crops import AREA_FRAC
from vqtrain.data.loading.batches import Batch, TrainingBatches
from vqtrain.data.loading.loaders import PREFETCH, Loader
from vqtrain.data.packing.images import ImagePack
from vqtrain.data.packing.pack import pack
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex


class Samples(Dataset[Tensor]):
    """Encoded images of an index, each turned into a tensor by a function.

    Args:
        index: The images.
        load: From encoded bytes to a tensor.
    """

    def __init__(self, index: SampleIndex, load: Callable[[bytes], Tensor]) -> None:
        self._index = index
        self._load = load

    def __len__(self) -> int:
        """Count the images."""
        return len(self._index)

    def __getitem__(self, number: int) -> Tensor:
        """Load an image."""
        return self._load(self._index.read(number))


class Textbook:
    """Decodes by Pillow, crops the PIL image, mirrors half, and scales to [-1, 1] on the CPU.

    Args:
        crop: From a picture to a square.
    """

    def __init__(self, crop: Callable[[Image.Image], Image.Image]) -> None:
        self._transform = transforms.Compose(
            [
                crop,
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3, inplace=True),
            ]
        )

    def __call__(self, encoded: bytes) -> Tensor:
        """Load an image."""
        tensor: Tensor = self._transform(Image.open(io.BytesIO(encoded)).convert("RGB"))
        return tensor


class HalvingCrop:
    """Halves by averages, resizes by bicubic to 1 to 1.25 times the square, crops at random.

    Args:
        size: Side of the square, in px.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Crop a picture."""
        size = self._size
        short = random.randint(size, math.ceil(size / 0.8))
        while min(picture.size) >= 2 * short:
            half = (picture.width // 2, picture.height // 2)
            picture = picture.resize(half, Image.Resampling.BOX)
        scale = short / min(picture.size)
        resized = (round(picture.width * scale), round(picture.height * scale))
        pixels = np.array(picture.resize(resized, Image.Resampling.BICUBIC))
        top = random.randint(0, pixels.shape[0] - size)
        left = random.randint(0, pixels.shape[1] - size)
        return Image.fromarray(pixels[top : top + size, left : left + size])


def decode(encoded: bytes) -> Tensor:
    """Decode and throw away: the limit of whoever decodes whole JPEGs by libjpeg-turbo."""
    if encoded.startswith(b"\xff\xd8"):
        data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        decode_jpeg(data, mode=ImageReadMode.RGB)
    else:
        Image.open(io.BytesIO(encoded)).convert("RGB")
    return torch.zeros(1)


def training_batches(
    index: SampleIndex, size: int, batch_size: int, *, crop: str = "random_resized"
) -> TrainingBatches:
    """Batches as vqtrain trains on them."""
    settings = ImageData(
        train="demo",
        val="auto",
        sampling="permuted",
        image_size=size,
        channels=3,
        range=None,
        background="white",
        crop=crop,
        flip=True,
        batch_size=batch_size,
        num_workers=1,
        max_bad_fraction=0.0,
    )
    return TrainingBatches(
        index, settings=settings, seed=0, rank=0, world_size=1, ranks_per_node=1, start=0
    )


def packed(index: SampleIndex, size: int, folder: Path) -> SampleIndex:
    """Pack images as raw pixels, and say what an image takes on the disk."""
    settings = ImagePack(
        image_size=size, crop="resize", format="raw", quality=95, shard_size=256.0, val=0.0
    )
    pack(index, out=folder, settings=settings, num_workers=1, progress=lambda *_: None)
    raw = open_samples(str(folder), role="training")
    for name, images in (("as given", index), ("raw", raw)):
        print(f"{name:<20}{images.sizes.mean() / 1e3:8.1f} kB an image")
    return raw


def ways(
    index: SampleIndex, raw: SampleIndex, size: int, batch_size: int
) -> dict[str, Callable[[], Iterator[object]]]:
    """Build a loader of endless batches for each way."""

    def ours(images: SampleIndex, crop: str) -> Callable[[], Iterator[object]]:
        batches = training_batches(images, size, batch_size, crop=crop)
        return lambda: iter(Loader(batches, num_workers=1))

    def theirs(load: Callable[[bytes], Tensor]) -> Callable[[], Iterator[object]]:
        samples = Samples(index, load)
        endless = RandomSampler(samples, num_samples=10**7)
        loader = DataLoader(samples, batch_size=batch_size, num_workers=1, sampler=endless)
        return lambda: iter(loader)

    def resized(mode: InterpolationMode) -> transforms.RandomResizedCrop:
        return transforms.RandomResizedCrop(size, scale=AREA_FRAC, interpolation=mode)

    def webdatasets(decoder: str, finish: list[nn.Module]) -> Callable[[], Iterator[object]]:
        transform = transforms.Compose([resized(InterpolationMode.BILINEAR), *finish])
        samples = webdataset.WebDataset(list(index.paths), resampled=True, shardshuffle=False)
        batches = samples.shuffle(1000).decode(decoder).to_tuple("jpg;jpeg;png")
        batches = batches.map_tuple(transform).batched(batch_size)
        loader = webdataset.WebLoader(batches, batch_size=None, num_workers=1)
        return lambda: iter(loader)

    scaled = [transforms.RandomHorizontalFlip(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    return {
        "ours": ours(index, "random_resized"),
        "ours_adm": ours(index, "adm"),
        "ours_raw": ours(raw, "resize"),
        "ours_raw_rrc": ours(raw, "random_resized"),
        "llamagen_way": theirs(Textbook(HalvingCrop(size))),
        "pillow_rrc": theirs(Textbook(resized(InterpolationMode.BILINEAR))),
        "pillow_rrc_bicubic": theirs(Textbook(resized(InterpolationMode.BICUBIC))),
        "webdataset_pil": webdatasets("pil", [transforms.ToTensor(), *scaled]),
        "webdataset_torchrgb": webdatasets("torchrgb", scaled),
        "decode_only": theirs(decode),
    }


def images_per_second(loader: Iterator[object], num_batches: int, batch_size: int) -> float:
    """Time batches after the first ones, for which the worker has to be started."""
    for _ in islice(loader, 5):
        pass
    began = time.perf_counter()
    for _ in islice(loader, num_batches):
        pass
    return num_batches * batch_size / (time.perf_counter() - began)


def by_processes(batches: Callable[[], TrainingBatches], workers: int) -> Iterator[Batch]:
    """Load by worker processes, as vqtrain does."""
    return iter(Loader(batches(), num_workers=workers))


def by_threads(batches: Callable[[], TrainingBatches], workers: int) -> Generator[Batch]:
    """Load the same batches in the same order by threads, as far ahead."""
    pools = [ThreadPoolExecutor(1) for _ in range(workers)]
    sources = [batches() for _ in pools]
    waiting: deque[Future[Batch]] = deque()
    try:
        for number in count():
            pool, source = pools[number % workers], sources[number % workers]
            waiting.append(pool.submit(source.__getitem__, number))
            if len(waiting) == PREFETCH * workers:
                yield waiting.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def megabytes() -> float:
    """Sum the proportional share of memory of this process and its workers."""
    pids = [os.getpid(), *(each.pid for each in multiprocessing.active_children())]
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return sum(int(line.split()[1]) for line in lines) / 1024


def small_steps(network: nn.Module, number: int) -> float:
    """Return the seconds of forward and backward passes that a CPU only has to start."""
    began = time.perf_counter()
    for _ in range(number):
        network(torch.ones(1, 8, 4, 4)).square().mean().backward()
    return time.perf_counter() - began


def compare_threads(
    index: SampleIndex, size: int, batch_size: int, num_batches: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Measure threads and processes in turn, one and two of them, and return the medians."""
    blocks = [(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.SiLU()) for _ in range(40)]
    network = nn.Sequential(*(layer for block in blocks for layer in block))
    small_steps(network, 20)
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        steps = 4 * num_batches
        found.setdefault("no loader", {}).setdefault("small step, ms", []).append(
            small_steps(network, steps) / steps * 1e3
        )
        for workers in (1, 2):
            for name, load in (("processes", by_processes), ("threads", by_threads)):
                row = found.setdefault(f"{workers} {name}", {})
                began = time.perf_counter()
                loader = load(lambda: training_batches(index, size, batch_size), workers)
                next(loader)
                row.setdefault("first batch, ms", []).append((time.perf_counter() - began) * 1e3)
                rate = images_per_second(loader, num_batches, batch_size)
                row.setdefault("images/s", []).append(rate)
                row.setdefault("memory, MB", []).append(megabytes())
                seconds = 0.0
                for _ in islice(loader, num_batches):
                    seconds += small_steps(network, 4)
                row.setdefault("small step, ms", []).append(seconds / steps * 1e3)
                loader.close()
    return {
        name: {what: round(median(values), 1) for what, values in row.items()}
        for name, row in found.items()
    }


def main() -> None:
    """Time all ways in turn, and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tars", nargs="+", help="tars of JPEGs")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", action="store_true", help="compare threads and processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    index = open_samples([str(Path(tar).absolute()) for tar in arguments.tars], role="training")
    size, batch_size = arguments.image_size, arguments.batch_size
    if arguments.threads:
        rows = compare_threads(index, size, batch_size, arguments.batches, arguments.rounds)
        for name, row in rows.items():
            print(f"{name:<14}" + "  ".join(f"{what} {value}" for what, value in row.items()))
        print(json.dumps(rows))
        return
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        raw = packed(index, size, Path(folder))
        for _ in range(arguments.rounds):
            for name, build in ways(index, raw, size, batch_size).items():
                rate = images_per_second(build(), arguments.batches, batch_size)
                rates.setdefault(name, []).append(rate)
    medians = {name: round(median(values), 1) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<20}{median(values):8.0f} images/s  ({min(values):.0f} to {max(values):.0f})")
    ratios = {
        f"ours/{name}": round(medians["ours"] / medians[name], 3)
        for name in medians
        if name != "ours"
    }
    print(json.dumps(medians | ratios))


if __name__ == "__main__":
    main()
