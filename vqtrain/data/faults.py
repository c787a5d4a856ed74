"""Bad samples and shards."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Fault:
    """A bad sample or shard that was skipped, as ``bad_samples.jsonl`` lists it.

    Attributes:
        shard: The file that holds it: a path or a URL.
        key: Name of the sample in it; empty for the file as a whole.
        reason: What is wrong, in one line.
    """

    shard: str
    key: str
    reason: str

    def listed(self) -> dict[str, str]:
        """Return it as files list it that go to other machines: without folders of this one."""
        return {"shard": PurePath(self.shard).name, "key": self.key, "reason": self.reason}


def most_left_out(max_bad_fraction: float, total: int) -> float:
    """Return how many of ``total`` images may be skipped: at least 1, unless the share is 0."""
    return max(1.0, max_bad_fraction * total) if max_bad_fraction else 0.0
