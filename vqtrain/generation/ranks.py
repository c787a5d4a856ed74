"""Do probes put tokenizers into the same order?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

# With two tokenizers, a rank correlation is 1 or -1, whatever the figures are.
FEWEST = 3


@final
@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """How alike two figures order the same tokenizers.

    Attributes:
        first: Name of a figure.
        second: Name of the other.
        value: Spearman's rank correlation: 1 for the same order, -1 for the opposite one.
        count: Tokenizers that have both figures.
    """

    first: str
    second: str
    value: float
    count: int


def rank_correlations(figures: Mapping[str, Sequence[float | None]]) -> list[RankCorrelation]:
    """Correlate the orders that each two figures give; ties have their mean rank.

    A pair is left out if fewer than three tokenizers have both figures, or if one figure is equal
    for all of them.

    Args:
        figures: By name, a value for each tokenizer, in the same order; None or NaN if it is
            missing. Give figures of which less is better with a minus.

    References:
        Spearman 1904, "The proof and measurement of association between two things".

    Example:
        >>> (found,) = rank_correlations({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 3.0, 2.0, 9.0]})
        >>> round(found.value, 6)
        0.8
    """
    columns = {name: np.array(values, dtype=np.float64) for name, values in figures.items()}
    found = []
    for (first, one), (second, other) in itertools.combinations(columns.items(), 2):
        are_there = np.isfinite(one) & np.isfinite(other)
        ranks = [_ranks(column[are_there]) for column in (one, other)]
        if are_there.sum() >= FEWEST and all(np.ptp(each) > 0 for each in ranks):
            value = float(np.corrcoef(ranks)[0, 1])
            count = int(are_there.sum())
            found.append(RankCorrelation(first=first, second=second, value=value, count=count))
    return found


def describe(found: Sequence[RankCorrelation]) -> list[str]:
    """Write correlations for people, a line for each; nothing if there are none."""
    head = "rank correlations of the orders from best to worst: 1 is the same, -1 the opposite"
    lines = [
        f"{f'{each.first}, {each.second}':<28}{each.value:+.2f} ({each.count} tokenizers)"
        for each in found
    ]
    return [head, *lines] if lines else []


def _ranks(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
