"""What the doctor finds: a line each, with a remedy."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table.

    Attributes:
        name: What was looked at.
        found: What was found.
        remedy: How to get what is missing, or None if nothing is.
        is_there: False for what is not here and may not be needed.
        is_slow: True where the remedy only makes a run faster.
        is_broken: True for what is here and does not work.
    """

    name: str
    found: str
    remedy: str | None = None
    is_there: bool = True
    is_slow: bool = False
    is_broken: bool = False

    @property
    def mark(self) -> str:
        """The first word of the line."""
        if self.remedy is None:
            return "ok" if self.is_there else "absent"
        if self.is_broken:
            return "broken"
        return "slow" if self.is_slow else "missing"


def join(names: Sequence[str]) -> str:
    """Name the first few, and count the rest."""
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{rest}"


def in_gib(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / 2**30:.1f} GiB"
