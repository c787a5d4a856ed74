"""Names of samples that WebDataset reads unchanged."""

from collections import defaultdict
from collections.abc import Sequence


def unique_keys(names: Sequence[str]) -> list[str]:
    """Make names unique and without dots in the last part.

    The first of equal names stays, the others get a number.

    Example:
        >>> unique_keys(["cats/1", "cats/1", "v1.0/a.b", "../c"])
        ['cats/1', 'cats/1-2', 'v1.0/a_b', 'c']
    """
    cleaned = []
    for name in names:
        *folders, last = [part for part in name.split("/") if part not in ("", ".", "..")] or ["_"]
        cleaned.append("/".join([*folders, last.replace(".", "_")]))
    taken = set(cleaned)
    if len(taken) == len(cleaned):
        return cleaned
    numbers: dict[str, int] = defaultdict(int)
    for position, key in enumerate(cleaned):
        numbers[key] += 1
        if numbers[key] == 1:
            continue
        while (numbered := f"{key}-{numbers[key]}") in taken:
            numbers[key] += 1
        taken.add(numbered)
        cleaned[position] = numbered
    return cleaned
