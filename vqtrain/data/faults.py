"""Samples and shards that cannot be used: what is known of each."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that was passed over, as ``bad_samples.jsonl`` lists it.

    Attributes:
        shard: The file that holds it: a path or a URL.
        key: Name of the sample in it; empty if the file as a whole is meant.
        reason: What is wrong, in one line.
    """

    shard: str
    key: str
    reason: str


def most_left_out(max_bad_fraction: float, total: int) -> float:
    """Return how many of ``total`` images may be left out: one always may, unless it is 0."""
    return max(1.0, max_bad_fraction * total) if max_bad_fraction else 0.0
