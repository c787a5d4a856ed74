"""A run's configuration as a table, next to that of another run."""

from collections.abc import Mapping
from typing import Any

import yaml

from vqtrain.data.remote.urls import shareable
from vqtrain.reports.blocks import Cell, Table, word

UNSET = "not set"


def configuration(
    config: Mapping[str, Any], other: tuple[str, Mapping[str, Any]] | None
) -> list[Table]:
    """Make a table of all keys, in the order of the file.

    Args:
        config: Of the run.
        other: Name and configuration of another run, or None.
    """
    mine = flattened(config)
    if other is None:
        rows = [[word(key), word(value)] for key, value in mine.items()]
        table = Table(caption="All keys", heads=["key", "value"], rows=rows, search="key or value")
        return [table]
    name, theirs = other[0], flattened(other[1])
    keys = list(dict.fromkeys([*mine, *theirs]))
    rows = []
    for key in keys:
        values = [mine.get(key), theirs.get(key)]
        tone = "bad" if values[0] != values[1] else ""
        rows.append([word(key), *(_value(value, tone) for value in values)])
    differing = frozenset(n for n, key in enumerate(keys) if mine.get(key) != theirs.get(key))
    return [
        Table(
            caption=f"All keys, compared with {name}: {len(differing)} differ",
            heads=["key", "this run", "the other run"],
            rows=rows,
            search="key or value",
            marked=differing,
            mark="Only differing keys",
        )
    ]


def _value(value: str | None, tone: str) -> Cell:
    return word(UNSET, tone="quiet") if value is None else word(value, tone=tone)


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Write a configuration as dotted keys, with values as they are typed.

    Example:
        >>> flattened({"seed": 0, "data": {"val": None, "range": [0, 1]}})
        {'seed': '0', 'data.val': 'null', 'data.range': '[0, 1]'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            text = text.strip().removesuffix("...").strip()
            found[f"{prefix}{key}"] = shareable(text)
    return found
