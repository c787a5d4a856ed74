"""What the doctor says of the samples of a run, of which it reads some."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.clips import look_at_clip
from vqtrain.data.decoding.headers import look_at
from vqtrain.data.decoding.sounds import look_at_sound
from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE, SOUND, VIDEO, Media
from vqtrain.data.remote.urls import is_url
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.sound import SoundData
from vqtrain.data.settings.video import VideoData
from vqtrain.data.sources.folders import describe_others
from vqtrain.data.sources.index import SampleIndex
from vqtrain.doctor.findings import Finding, join
from vqtrain.doctor.speed import Planned, examine_speed
from vqtrain.errors import BadSampleError
from vqtrain.shapes import ImageSize, sides, typed

MAX_SAMPLE, SAMPLE_S = 256, 4.0
MAX_REASON = 100
# SSIM's window is 11 px.
LEAST_IMAGE_SIZE = 11
# From this many on, a file for each picture is slow to list and to fetch.
MANY_FILES = 1000
# Clips begin at any frame, and are decoded from the key frame before it.
FREQUENT_KEYS = 30
# What tells the size and the mode of a sample.
LOOKS: Mapping[Media, Callable[[bytes], tuple[tuple[int, ...], str]]] = {
    IMAGE: look_at,
    VIDEO: look_at_clip,
    SOUND: look_at_sound,
}


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was found in some samples.

    Attributes:
        good: How many can be used.
        sizes: Of each that can be used: of an image width and height in px, of a sound the samples
            of a channel and their rate, of a clip its frames, ms and frames from one key frame to
            the next.
        modes: How many there are of each kind of pixels, or of rate, channels and coding.
        faults: Those that cannot be used.
        seconds: Time to read and prepare one, or 0 if none can be used.
    """

    good: int
    sizes: Sequence[tuple[int, ...]]
    modes: Counter[str]
    faults: Sequence[Fault]
    seconds: float

    @property
    def count(self) -> int:
        """How many were tried."""
        return self.good + len(self.faults)


def examine(planned: Planned, index: SampleIndex) -> Iterator[Finding]:
    """Look at the samples, then at the speed with them.

    Args:
        planned: The run.
        index: Its images.

    Yields:
        Findings, as they are made.
    """
    data = planned.data
    yield from examine_files(index)
    if len(index.clips):
        index = index.clips  # images among them are read as images are
    sample = read_sample(index, data.transform)
    if sample.faults:
        yield describe_unreadable(sample, data.max_bad_fraction)
    if not sample.good:
        return
    short_side = None
    if isinstance(data, ImageData):
        unit = math.lcm(*planned.module.tokenizer.unit)
        yield describe_sizes(sample.sizes, data.image_size, unit)
        short_side = int(np.median([min(size) for size in sample.sizes]))
    if isinstance(data, VideoData):
        yield from describe_clips(sample.sizes)
    if isinstance(data, SoundData):
        yield describe_lengths(sample.sizes)
    if sample.modes:
        shown = ", ".join(f"{mode}: {count}" for mode, count in sample.modes.most_common())
        yield Finding(name="modes", found=shown)
    yield from examine_speed(planned, index, seconds=sample.seconds, short_side=short_side)


def examine_files(index: SampleIndex) -> Iterator[Finding]:
    """Tell how many pictures there are, and what the index could not use."""
    total, files = float(index.sizes.sum()), len(np.unique(index.path_ids))
    mean = in_bytes(total / max(1, len(index)))
    found = f"{len(index)}, files: {files}, {in_bytes(total)}, mean: {mean}"
    key = index.media.key
    from_server = any(is_url(path) for path in index.paths)
    if from_server and files >= MANY_FILES and files == len(index):
        yield Finding(
            name=key,
            found=f"{found}; each is fetched by itself",
            remedy=f"put them into tars once: vqtrain pack {key}={key.upper()} out=DIR",
            is_slow=True,
        )
    else:
        yield Finding(name=key, found=found)
    if index.others:
        yield Finding(name="not taken", found=describe_others(index.others, index.media))
    if index.faults:
        yield Finding(
            name="faults",
            found=f"{len(index.faults)} found in the files: {join(list(map(name, index.faults)))}",
            remedy="fetch or write them again; a run skips what they lack",
        )


def read_sample(index: SampleIndex, transform: Transform) -> Sample:
    """Read some pictures, evenly spread, as a worker of a run does; bounded in time."""
    random = np.random.default_rng(0)
    ids = np.linspace(0, len(index) - 1, min(MAX_SAMPLE, len(index))).round().astype(int)
    sizes: list[tuple[int, ...]] = []
    modes: Counter[str] = Counter()
    seconds: list[float] = []
    bad: dict[int, Fault] = {}
    end = time.monotonic() + SAMPLE_S
    # In no order, so that they are spread over all if there is no time for the last ones.
    for image_id in random.permutation(ids).tolist():
        began = time.perf_counter()
        try:
            encoded = index.read(image_id)
            transform.decode(encoded, random)
        except BadSampleError as error:
            bad[image_id] = index.fault(image_id, str(error))
        else:
            seconds.append(time.perf_counter() - began)
            size, mode = LOOKS[transform.media](encoded)
            sizes.append(size)
            modes[mode] += 1
        if time.monotonic() > end:
            break
    return Sample(
        good=len(seconds),
        sizes=sizes,
        modes=modes,
        faults=[bad[image_id] for image_id in sorted(bad)],
        seconds=float(np.median(seconds)) if seconds else 0.0,
    )


def describe_unreadable(sample: Sample, max_bad_fraction: float) -> Finding:
    """Name pictures that cannot be used, and say what a run makes of them."""
    is_too_many = len(sample.faults) > max_bad_fraction * sample.count
    does = f"stops above data.max_bad_fraction={max_bad_fraction}" if is_too_many else "goes on"
    remedy = f"delete them or save them again; a run skips them and {does}"
    if not sample.good:
        remedy = "if other programs read them, set the keys of data as the files have them"
    return Finding(
        name="unreadable",
        found=f"{len(sample.faults)} of {sample.count} that were tried: "
        f"{join(list(map(name, sample.faults)))}",
        remedy=remedy,
    )


def name(fault: Fault) -> str:
    """Name a fault, with its reason."""
    reason = fault.reason if len(fault.reason) <= MAX_REASON else f"{fault.reason[:MAX_REASON]}..."
    return f"{f'{fault.key!r} in ' if fault.key else ''}{fault.shard} ({reason})"


def describe_sizes(sizes: Sequence[tuple[int, ...]], image_size: ImageSize, unit: int) -> Finding:
    """Tell the smallest, the median and the largest size by the short side, width before height."""
    ordered = sorted(sizes, key=lambda size: (min(size), max(size)))
    median = ordered[len(ordered) // 2]
    shown = {"smallest": ordered[0], "median": median, "largest": ordered[-1]}
    text = ", ".join(f"{word} {width} x {height} px" for word, (width, height) in shown.items())
    short = min(median)
    if short < min(sides(image_size)):
        least = -(-LEAST_IMAGE_SIZE // unit) * unit
        fitting = max(least, short - short % unit)
        text += f"; smaller than data.image_size={typed(image_size)}, try data.image_size={fitting}"
    return Finding(name="sizes", found=text)


def describe_clips(sizes: Sequence[tuple[int, ...]]) -> Iterator[Finding]:
    """Tell the shortest, the median and the longest clip, and whether key frames are rare."""
    ordered = sorted(sizes)
    chosen = {"shortest": ordered[0], "median": ordered[len(ordered) // 2], "longest": ordered[-1]}
    words = []
    for word, (frames, lasts_ms, _) in chosen.items():
        seconds = f" ({lasts_ms / 1000:.3g} s)" if lasts_ms else ""
        words.append(f"{word} {frames} frames{seconds}")
    yield Finding(name="lengths", found=", ".join(words))
    key_every = int(np.median([size[2] for size in sizes]))
    remedy = "make more of them: vqtrain pack videos=VIDEOS format=mp4 out=DIR"
    yield Finding(
        name="key frames",
        found=f"{key_every} frames from one to the next, in the median",
        remedy=remedy if key_every > FREQUENT_KEYS else None,
        is_slow=key_every > FREQUENT_KEYS,
    )


def describe_lengths(sizes: Sequence[tuple[int, ...]]) -> Finding:
    """Tell the shortest, the median and the longest sound, in seconds."""
    seconds = sorted(frames / rate for frames, rate in sizes)
    shown = {"shortest": seconds[0], "median": seconds[len(seconds) // 2], "longest": seconds[-1]}
    return Finding(name="lengths", found=", ".join(f"{w} {s:.3g} s" for w, s in shown.items()))


def in_bytes(size: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
