"""Times vqtrain's loader against loaders as tokenizer repositories and textbooks build them.

Each way runs in a DataLoader with one worker process, over the same samples in tars that are
indexed before; they take turns, and the medians are compared. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_data.py photos-00000.tar photos-00001.tar
"""

import argparse
import io
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode

from vqtrain.data.decoding.crops import AREA_FRAC
from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources.find import open_images
from vqtrain.data.sources.index import ImageIndex


class Samples(Dataset[Tensor]):
    """Encoded images of an index, each turned into a tensor by a function.

    Args:
        index: The images.
        load: From encoded bytes to a tensor.
    """

    def __init__(self, index: ImageIndex, load: Callable[[bytes], Tensor]) -> None:
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


def ways(
    index: ImageIndex, size: int, batch_size: int
) -> dict[str, Callable[[], Iterator[object]]]:
    """Build a loader of endless batches for each way."""
    settings = DataSettings(
        train="demo",
        val="auto",
        sampling="permuted",
        image_size=size,
        channels=3,
        range=None,
        background="white",
        crop="random_resized",
        flip=True,
        batch_size=batch_size,
        num_workers=1,
        max_bad_fraction=0.0,
    )

    def ours(crop: str) -> Callable[[], Iterator[object]]:
        changed = DataSettings(**(vars(settings) | {"crop": crop}))
        place = {"seed": 0, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
        return lambda: iter(
            Loader(TrainingBatches(index, settings=changed, **place), num_workers=1)
        )

    def theirs(load: Callable[[bytes], Tensor]) -> Callable[[], Iterator[object]]:
        samples = Samples(index, load)
        endless = RandomSampler(samples, num_samples=10**7)
        loader = DataLoader(samples, batch_size=batch_size, num_workers=1, sampler=endless)
        return lambda: iter(loader)

    def resized(mode: InterpolationMode) -> Textbook:
        return Textbook(transforms.RandomResizedCrop(size, scale=AREA_FRAC, interpolation=mode))

    return {
        "ours": ours("random_resized"),
        "ours_adm": ours("adm"),
        "llamagen_way": theirs(Textbook(HalvingCrop(size))),
        "pillow_rrc": theirs(resized(InterpolationMode.BILINEAR)),
        "pillow_rrc_bicubic": theirs(resized(InterpolationMode.BICUBIC)),
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


def main() -> None:
    """Time all ways in turn, and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tars", nargs="+", help="tars of JPEGs")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    index = open_images([str(Path(tar).absolute()) for tar in arguments.tars], role="training")
    rates: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, build in ways(index, arguments.image_size, arguments.batch_size).items():
            rate = images_per_second(build(), arguments.batches, arguments.batch_size)
            rates.setdefault(name, []).append(rate)
    medians = {name: round(median(values), 1) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<20}{median(values):8.0f} images/s  ({min(values):.0f} to {max(values):.0f})")
    ratios = {
        f"ours/{name}": round(medians["ours"] / medians[name], 3)
        for name in medians
        if not name.startswith("ours")
    }
    print(json.dumps(medians | ratios))


if __name__ == "__main__":
    main()
