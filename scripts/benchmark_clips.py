"""Times vqtrain's loaders of sounds against a plain loop over the library that decodes them.

Each way has one worker process, over the same samples in tars, which are made first. The ways take
turns, and the medians are compared. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_clips.py sounds
"""

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.media import SOUND
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.sound import SoundData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex

COUNT, BATCH_SIZE = 64, 16
Load = Callable[[bytes], Tensor]
# The settings of vqtrain's loader, the samples, and what a plain loop does with each.
Case = tuple[DataSettings, Iterable[tuple[str, bytes]], Load]


class Samples(Dataset[Tensor]):
    """Encoded samples of an index, each turned into a tensor by a function.

    Args:
        index: The samples.
        load: From encoded bytes to a tensor.
    """

    def __init__(self, index: SampleIndex, load: Load) -> None:
        self._index = index
        self._load = load

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._index)

    def __getitem__(self, number: int) -> Tensor:
        """Load a sample."""
        return self._load(self._index.read(number))


class PlainSound:
    """Reads a random window by soundfile, takes the mean of the channels, and resamples it.

    Args:
        rate: Wanted, in Hz.
        length: Of the window, at that rate.
    """

    def __init__(self, rate: int, length: int) -> None:
        self._rate = rate
        self._length = length

    def __call__(self, encoded: bytes) -> Tensor:
        """Load a window."""
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            wanted = -(-self._length * file.samplerate // self._rate)
            file.seek(random.randrange(file.frames - wanted + 1))
            values = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
            if file.samplerate != self._rate:
                values = soxr.resample(values, file.samplerate, self._rate)
        return torch.from_numpy(values[None, : self._length])


def sound_cases() -> Iterator[tuple[str, Case]]:
    """Make sounds of 10 s: a noise that comes and goes, of which windows of 1 s are read."""
    rate, length = 16000, 16000
    settings = SoundData(
        train="-",
        val="-",
        sampling="permuted",
        sample_rate=rate,
        length=length,
        channels=1,
        batch_size=BATCH_SIZE,
        num_workers=1,
        max_bad_fraction=0.0,
    )
    noise = np.random.default_rng(0)
    for kind, subtype, file_rate, channels in (
        ("WAV", "PCM_16", 16000, 1),
        ("FLAC", "PCM_16", 16000, 1),
        ("OGG", "VORBIS", 16000, 1),
        ("WAV", "PCM_16", 44100, 2),
        ("FLAC", "PCM_16", 44100, 2),
    ):
        files = []
        for number in range(COUNT):
            times = np.arange(10 * file_rate)[:, None] / file_rate
            values = noise.normal(0, 0.1, (len(times), channels)) * np.sin(times + number)
            file = io.BytesIO()
            soundfile.write(file, values, file_rate, format=kind, subtype=subtype)
            files.append((f"{number:03d}.{kind.lower()}", file.getvalue()))
        name = f"{kind.lower()} of {file_rate} Hz, channels: {channels}"
        yield name, (settings, files, PlainSound(rate, length))


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files by name and content."""
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def samples_per_second(loader: Iterator[object], num_batches: int) -> float:
    """Time batches after the first ones, for which the worker has to be started."""
    for _ in islice(loader, 5):
        pass
    began = time.perf_counter()
    for _ in islice(loader, num_batches):
        pass
    return num_batches * BATCH_SIZE / (time.perf_counter() - began)


def compare(
    index: SampleIndex, settings: DataSettings, load: Load, num_batches: int, rounds: int
) -> dict[str, list[float]]:
    """Time both ways in turn."""
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        batches = TrainingBatches(
            index, settings=settings, seed=0, rank=0, world_size=1, ranks_per_node=1, start=0
        )
        ours = Loader(batches, num_workers=1)
        rates["ours"].append(samples_per_second(iter(ours), num_batches))
        samples = Samples(index, load)
        endless = RandomSampler(samples, num_samples=10**7)
        plain = DataLoader(samples, batch_size=BATCH_SIZE, num_workers=1, sampler=endless)
        rates["plain"].append(samples_per_second(iter(plain), num_batches))
    return rates


KINDS = {"sounds": (SOUND, sound_cases)}


def main() -> None:
    """Time all cases, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--batches", type=int, default=40, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    media, cases = KINDS[arguments.kind]
    ratios = {}
    for name, (settings, files, load) in cases():
        with tempfile.TemporaryDirectory() as folder:
            tar = Path(folder) / "samples.tar"
            write_tar(tar, files)
            index = open_samples(str(tar), media, role="training")
            rates = compare(index, settings, load, arguments.batches, arguments.rounds)
        ours, plain = median(rates["ours"]), median(rates["plain"])
        ratios[name] = round(ours / plain, 3)
        print(f"{name:<32}ours {ours:8.0f} {media.noun}s/s  plain {plain:8.0f}  {ours / plain:.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
