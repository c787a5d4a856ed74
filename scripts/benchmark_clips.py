"""Times the loaders of clips and sounds against a plain loop over the library that decodes them.

Each way has one worker process, over the same samples in tars, which are made first. The ways take
turns, and the medians are compared. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_clips.py clips (or sounds)
"""

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
import soundfile
import soxr
import torch
from benchmark_data import Samples
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms.v2 import functional

from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.media import SOUND, VIDEO
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.sound import SoundData
from vqtrain.data.settings.video import VideoData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.drawing.mp4 import encode_mp4

COUNT, BATCH_SIZE = 64, 16
Load = Callable[[bytes], Tensor]
# The settings of vqtrain's loader, the samples, and what a plain loop does with each.
Case = tuple[DataSettings, Iterable[tuple[str, bytes]], Load]


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


class PlainClip:
    """Decodes every so many frames from a random one on by PyAV, and resizes them by torch.

    It looks for the key frame before the first frame, in files of a constant rate.

    Args:
        frames: Of a clip.
        stride: From one of them to the next.
        side: Of the square in the middle, in px.
    """

    def __init__(self, frames: int, stride: int, side: int) -> None:
        self._frames = frames
        self._stride = stride
        self._side = side

    def __call__(self, encoded: bytes) -> Tensor:
        """Load a clip."""
        found: list[np.ndarray] = []
        with av.open(io.BytesIO(encoded)) as container:
            track = container.streams.video[0]
            track.codec_context.thread_count = 1
            assert track.average_rate is not None
            assert track.time_base is not None
            tick = 1 / (track.average_rate * track.time_base)
            count = round(float((container.duration or 0) / av.time_base * track.average_rate))
            start = random.randrange(count - (self._frames - 1) * self._stride)
            container.seek(int(start * tick), stream=track)
            for frame in container.decode(track):
                number = round((frame.pts or 0) / tick)
                if number >= start and (number - start) % self._stride == 0:
                    found.append(frame.to_ndarray(format="rgb24", threads=1))
                if len(found) == self._frames:
                    break
        clip = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)
        height, width = clip.shape[2:]
        short = min(height, width)
        size = [height * self._side // short, width * self._side // short]
        clip = functional.resize(clip, size, antialias=True)
        return functional.center_crop(clip, [self._side, self._side]).transpose(0, 1)


def clip_cases() -> Iterator[tuple[str, Case]]:
    """Make videos of 8 s at 30 frames a second: noise that moves, smooth at the small scale."""
    noise = np.random.default_rng(0)
    for width, height, key_every, side, stride in (
        (320, 240, 12, 128, 1),
        (320, 240, 250, 128, 1),
        (320, 240, 12, 128, 4),
        (80, 80, 12, 64, 1),
        (640, 480, 12, 256, 1),
    ):
        settings = VideoData(
            train="-",
            val="-",
            sampling="permuted",
            image_size=side,
            crop="resize",
            flip=False,
            background="white",
            frames=16,
            fps=None,
            stride=stride,
            frames_per_loss=None,
            channels=3,
            batch_size=BATCH_SIZE,
            num_workers=1,
            max_bad_fraction=0.0,
        )
        files = []
        for number in range(8):
            small = noise.integers(0, 256, (height // 8 + 16, width // 8 + 16, 3), dtype=np.uint8)
            picture = np.asarray(
                Image.fromarray(small).resize((width + 128, height + 128), Image.Resampling.BICUBIC)
            )
            places = [(abs(64 - frame % 128), frame * 128 // 240) for frame in range(240)]
            frames = (picture[y : y + height, x : x + width] for x, y in places)
            encoded = encode_mp4(
                frames, times=range(241), tick=Fraction(1, 30), crf=20, key_every=key_every
            )
            files += [(f"{number}-{copy}.mp4", encoded) for copy in range(COUNT // 8)]
        name = f"{width} x {height} px to {side}, key frames: {key_every}, stride: {stride}"
        yield name, (settings, files, PlainClip(16, stride, side))


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


KINDS = {"clips": (VIDEO, clip_cases), "sounds": (SOUND, sound_cases)}


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
        print(f"{name:<56}ours {ours:8.0f} {media.noun}s/s  plain {plain:8.0f}  {ours / plain:.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
