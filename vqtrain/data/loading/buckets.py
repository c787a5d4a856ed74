"""Sizes of about one area and different aspect ratios, and which images go to which of them."""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from vqtrain.data.cache import cache_folder, cached
from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.headers import ratio_of
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError
from vqtrain.shapes import ImageSize, sides

# Width / height of the buckets: those of photographs, films and screens, wide and upright.
WIDE = (1, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2)
RATIOS = (*(1 / ratio for ratio in WIDE[:0:-1]), *WIDE)
# The sizes of most images are in their first bytes.
HEAD_BYTES = 64 * 1024


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Buckets:
    """Sizes, and the images of each.

    Attributes:
        sizes: Of the axes of each, such as height and width in px; each has an image.
        labels: The bucket of each image.
    """

    sizes: Sequence[tuple[int, ...]]
    labels: UInt8[np.ndarray, " n"]


def bucket_sizes(image_size: ImageSize, unit: Sequence[int]) -> list[tuple[int, int]]:
    """Choose sizes of about the area of ``image_size``, from 1:2 to 2:1.

    Args:
        image_size: Side of a square, or height and width, in px.
        unit: Height and width of a token in px, which divide each size.

    Returns:
        Height and width of each, from upright to wide.

    Example:
        >>> bucket_sizes(64, (16, 16))
        [(96, 48), (80, 48), (64, 64), (48, 80), (48, 96)]
    """
    side = math.sqrt(math.prod(sides(image_size)))
    sizes = []
    for ratio in RATIOS:
        height, width = side / math.sqrt(ratio), side * math.sqrt(ratio)
        rows, columns = round(height / unit[0]), round(width / unit[1])
        sizes.append((max(1, rows) * unit[0], max(1, columns) * unit[1]))
    return list(dict.fromkeys(sizes))


def make_buckets(
    ratios: Float32[np.ndarray, " n"], sizes: Sequence[tuple[int, int]], *, least: int
) -> Buckets:
    """Give each image the size whose ratio is nearest to its own.

    Args:
        ratios: Width / height of each image; NaN, if it is unknown, is taken for 1.
        sizes: Height and width of each bucket.
        least: Images without which a bucket leaves its own to the one with the nearest ratio.
    """
    logs = np.log(np.nan_to_num(ratios, nan=1.0).astype(np.float64))
    targets = np.array([math.log(width / height) for height, width in sizes])
    kept = list(range(len(sizes)))
    while True:
        own = targets[kept]
        # The borders between neighbors are in the middle between their logarithms.
        labels = np.searchsorted((own[1:] + own[:-1]) / 2, logs, side="right")
        counts = np.bincount(labels, minlength=len(kept))
        fewest = int(counts.argmin())
        if counts[fewest] >= least or len(kept) == 1:
            return Buckets(sizes=[sizes[i] for i in kept], labels=labels.astype(np.uint8))
        del kept[fewest]


def clip_buckets(stills: Bool[np.ndarray, " n"], size: tuple[int, int, int]) -> Buckets:
    """Give clips their size, and images among them that of one frame.

    Args:
        stills: Which are images: some, and not all.
        size: Frames, height and width of a clip.
    """
    return Buckets(sizes=[size, (1, *size[1:])], labels=stills.astype(np.uint8))


def with_ratios(index: SampleIndex, transform: Transform) -> SampleIndex:
    """Find the ratio of each image whose ratio is not known, by its header.

    Packs know them. Others are read once, and cached by the names and lengths of the files.

    Args:
        index: The images.
        transform: How images are decoded whose header is in no usual place.
    """
    unknown = np.flatnonzero(np.isnan(index.ratios))
    if not len(unknown):
        return index
    digest = blake2b("\0".join(index.paths).encode(errors="surrogateescape"), digest_size=16)
    digest.update(index.digest.encode())
    entry = cache_folder() / "ratios" / f"{digest.hexdigest()}.npy"

    def compute() -> Float32[np.ndarray, " n"]:
        ratios = index.ratios.copy()
        for image_id in unknown.tolist():
            ratios[image_id] = _ratio(index, image_id, transform)
        return ratios

    ratios = cached(entry, load=lambda: _load(entry, len(index)), compute=compute, pack=_pack)
    return replace(index, ratios=ratios)


def _ratio(index: SampleIndex, image_id: int, transform: Transform) -> float:
    with suppress(BadSampleError):
        return ratio_of(index.read(image_id, limit=HEAD_BYTES))
    with suppress(BadSampleError):
        _, height, width = transform.decode_whole(index.read(image_id)).shape
        return width / height
    return math.nan  # reported when its turn comes


def _pack(ratios: Float32[np.ndarray, " n"]) -> bytes:
    packed = io.BytesIO()
    np.save(packed, ratios)
    return packed.getvalue()


def _load(entry: Path, count: int) -> Float32[np.ndarray, " n"] | None:
    try:
        ratios = np.load(entry, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    return ratios if ratios.shape == (count,) and ratios.dtype == np.float32 else None
