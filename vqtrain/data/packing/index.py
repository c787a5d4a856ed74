"""The index.json of a pack: what it says, and whether it speaks of the same images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Shaped

from vqtrain.data.cache import write_whole
from vqtrain.data.packing.plan import Plan
from vqtrain.data.packing.shards import ShardEntry, ShardState, read_digests
from vqtrain.errors import ConfigError, DataError

INDEX = "index.json"
FORMAT, VERSION = "vqtrain-pack", 1


class Identity(TypedDict):
    """What a pack is made from: equal ones give equal bytes."""

    format: str
    version: int
    settings: dict[str, object]
    images: dict[str, int | str]


class Beginning(Identity):
    """The content of plan.json; ``val_ids`` are the positions of what is held out."""

    val_ids: list[int]


class Split(TypedDict):
    """One side of the split, as index.json has it."""

    samples: int
    bytes: int
    shards: list[ShardEntry]


class Report(Identity):
    """The content of index.json; ``duplicates`` are groups of keys whose pictures are equal."""

    train: Split
    val: Split
    skipped: list[dict[str, str]]
    duplicates: list[list[str]]


def identify(plan: Plan) -> Identity:
    """Say what a pack is made from."""
    return Identity(
        format=FORMAT,
        version=VERSION,
        settings=asdict(plan.settings),
        images={"count": len(plan.pictures), "digest": plan.digest},
    )


def write_index(plan: Plan, out: Path, state: Path, sides: Sequence[list[ShardState]]) -> Report:
    """Write index.json, whose presence says that the pack is complete.

    Args:
        plan: What was to be packed.
        out: The pack.
        state: Its folder for what is not whole yet.
        sides: The shards of train and of val.
    """
    train, val = ([state["shard"] for state in states] for states in sides)
    faults = [*plan.pictures.faults, *plan.fields.faults]
    skipped = [asdict(fault) for fault in faults]
    skipped += [fault for states in sides for state in states for fault in state["skipped"]]
    names = [entry["name"].removesuffix(".tar") for entry in (*train, *val)]
    report = Report(
        **identify(plan),
        train=_summarize(train),
        val=_summarize(val),
        skipped=skipped,
        duplicates=_duplicates(plan, np.concatenate([read_digests(state, name) for name in names])),
    )
    write_whole(state / INDEX, json.dumps(report, indent=1).encode())
    (state / INDEX).replace(out / INDEX)
    return report


def _summarize(shards: list[ShardEntry]) -> Split:
    return Split(
        samples=sum(entry["samples"] for entry in shards),
        bytes=sum(entry["bytes"] for entry in shards),
        shards=shards,
    )


def _duplicates(plan: Plan, digests: Shaped[np.ndarray, " n"]) -> list[list[str]]:
    """Group the keys of equal pictures, both in the order of the sources."""
    found = np.sort(digests, order=["digest", "image_id"])
    _, firsts, counts = np.unique(found["digest"], return_index=True, return_counts=True)
    groups = [
        found["image_id"][first : first + count].tolist()
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        if count > 1
    ]
    return [[plan.keys[image_id] for image_id in group] for group in sorted(groups)]


def check_same(out: Path, begun: Identity, identity: Identity) -> None:
    """Refuse to continue a pack of other images or settings.

    Raises:
        ConfigError: Naming what differs.
    """
    what = f"out={out} is a pack"
    if begun["version"] != VERSION:
        raise ConfigError(f"{what} of version {begun['version']}, and this is version {VERSION}")
    check_settings(what, begun["settings"], identity["settings"])
    before, now = begun["images"], identity["images"]
    if before["count"] != now["count"]:
        raise ConfigError(
            f"{what} of {before['count']} images, now there are {now['count']}: give another out"
        )
    if before != now:
        raise ConfigError(
            f"{what} of other images, or of some that have changed: their names, sizes or sidecars "
            "differ; give another out"
        )


def check_settings(what: str, begun: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse to continue with other settings.

    Raises:
        ConfigError: Naming the first that differs.
    """
    for key, value in now.items():
        before = begun.get(key)
        if before != value:
            raise ConfigError(
                f"{what} with {key}={_typed(before)}, not {_typed(value)}: give "
                f"{key}={_typed(before)}, or another out"
            )


def check_shards(out: Path, report: Report) -> None:
    """Refuse a complete pack that lacks something.

    Raises:
        DataError: If a shard is missing or has another length.
    """
    for entry in (*report["train"]["shards"], *report["val"]["shards"]):
        file = out / entry["name"]
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise DataError(
                f"{file} is missing or has changed since it was packed: delete {out} and pack anew"
            )


def _typed(value: object) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_json(file: Path) -> object:
    """Read a file that was written here.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; delete it to make it anew") from error
