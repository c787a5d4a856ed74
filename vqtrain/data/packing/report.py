"""The index.json of a pack, and the lists of members next to its shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

import numpy as np
from jaxtyping import Shaped

from vqtrain.data.media import IMAGE
from vqtrain.data.packing.base import PackSettings
from vqtrain.data.packing.plan import SPLITS, Plan
from vqtrain.data.packing.samples import read_note
from vqtrain.data.shards.folder import ShardFolder
from vqtrain.data.shards.writer import FileEntry, read_whole
from vqtrain.data.sources.scan import write_members
from vqtrain.errors import DataError

# Which image has which digest.
_DIGESTS = np.dtype([("image_id", "<i8"), ("digest", "S32")])


class ShardEntry(FileEntry):
    """A shard as index.json lists it, with the sizes and kinds of its images."""

    sizes: dict[str, str]
    modes: dict[str, int]


class Split(TypedDict):
    """One side of the split."""

    samples: int
    bytes: int
    shards: list[ShardEntry]


class Report(TypedDict):
    """The content of index.json; ``duplicates`` are groups of keys of equal images."""

    format: str
    version: int
    media: str
    settings: dict[str, object]
    images: dict[str, int | str]
    train: Split
    val: Split
    skipped: list[dict[str, str]]
    duplicates: list[list[str]]


def shard_name(split: str, number: int) -> str:
    """Name a shard below its pack."""
    return f"{split}/shard-{number:05d}"


def make_report(plan: Plan, folder: ShardFolder, counts: Mapping[str, int]) -> Report:
    """Write the list of members of each shard, and summarize all of them.

    Args:
        plan: The plan.
        folder: The pack, whose shards are complete.
        counts: Shards of each split.

    Raises:
        DataError: If a shard has disappeared.
    """
    faults = [*plan.images.faults, *plan.fields.faults]
    skipped = [fault.listed() for fault in faults]
    entries: dict[str, list[ShardEntry]] = {name: [] for name in SPLITS}
    digests = []
    for split in SPLITS:
        for number in range(counts[split]):
            whole = read_whole(folder.state, shard_name(split, number), folder.out)
            if whole is None:
                raise DataError(f"{folder.out / shard_name(split, number)}.tar has disappeared")
            skipped += whole["skipped"]
            notes = [read_note(values) for values in cast(list[list[int | str]], whole["notes"])]
            is_image = plan.settings.media is IMAGE
            write_members(
                folder.out / whole["shard"]["name"],
                offsets=[note.offset for note in notes],
                sizes=[note.length for note in notes],
                keys=[plan.keys[note.sample_id] for note in notes],
                ratios=[note.size[0] / note.size[1] for note in notes] if is_image else (),
            )
            entries[split].append(
                ShardEntry(
                    **whole["shard"],
                    sizes=_sizes([note.size for note in notes], plan.settings),
                    modes=dict(sorted(Counter(note.mode for note in notes).items())),
                )
            )
            rows = [(note.sample_id, note.digest) for note in notes]
            digests.append(np.array(rows, dtype=_DIGESTS))
    report = {
        **plan.identity,
        "train": _summarize(entries["train"]),
        "val": _summarize(entries["val"]),
        "skipped": skipped,
        "duplicates": _duplicates(plan, np.concatenate(digests)),
    }
    return cast(Report, report)


def _sizes(sizes: Sequence[tuple[int, ...]], settings: PackSettings) -> dict[str, str]:
    ordered = sorted(sizes, key=settings.rank)
    positions = {"smallest": 0, "median": len(ordered) // 2, "largest": -1}
    return {word: settings.shown(ordered[i]) for word, i in positions.items()}


def _summarize(shards: list[ShardEntry]) -> Split:
    return Split(
        samples=sum(entry["samples"] for entry in shards),
        bytes=sum(entry["bytes"] for entry in shards),
        shards=shards,
    )


def _duplicates(plan: Plan, digests: Shaped[np.ndarray, " n"]) -> list[list[str]]:
    """Group the keys of equal images, both in the order of the sources."""
    found = np.sort(digests, order=["digest", "image_id"])
    _, firsts, counts = np.unique(found["digest"], return_index=True, return_counts=True)
    groups = [
        found["image_id"][first : first + count].tolist()
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        if count > 1
    ]
    return [[plan.keys[image_id] for image_id in group] for group in sorted(groups)]
