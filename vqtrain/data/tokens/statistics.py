"""What latents are like, from sums over the batches that they were written in."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float16

from vqtrain.data.tokens.report import Statistics


def sums_of(latents: Float16[np.ndarray, "b h w c"]) -> list[object]:
    """Sum up a batch as plain data: count and, by channel, sums and sums of squares; both ends.

    Of no latents the sums are 0, and the ends None.
    """
    flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    ends = [float(flat.min()), float(flat.max())] if flat.size else [None, None]
    return [len(flat), flat.sum(0).tolist(), (flat**2).sum(0).tolist(), *ends]


def statistics_of(notes: Sequence[Sequence[object]]) -> Statistics:
    """Put the sums of all batches together.

    Example:
        >>> batch = np.array([[[[1, 0], [3, 0]]]], dtype=np.float16)
        >>> statistics_of([sums_of(batch), sums_of(batch)])
        {'mean': [2.0, 0.0], 'std': [1.0, 0.0], 'min': 0.0, 'max': 3.0}
    """
    counts, sums, squares, lows, highs = (list(column) for column in zip(*notes, strict=True))
    count = max(1, int(np.sum(counts)))
    mean = np.sum(sums, axis=0) / count
    variance = np.maximum(np.sum(squares, axis=0) / count - mean**2, 0)
    return Statistics(
        mean=mean.tolist(),
        std=np.sqrt(variance).tolist(),
        min=min((low for low in lows if low is not None), default=0.0),
        max=max((high for high in highs if high is not None), default=0.0),
    )


def weight_of(statistics: Statistics) -> float:
    """Return the weight that makes a squared error of data in ``limit_of`` a share of the variance.

    So the error counts as much beside the loss of a codebook, whose latents have a variance of 1,
    whatever the largest values are.

    Example:
        >>> weight_of({"mean": [0.0, 0.0], "std": [1.0, 3.0], "min": -9.0, "max": 10.0})
        20.0
    """
    variance = float(np.mean(np.square(statistics["std"])))
    return float(f"{limit_of(statistics) ** 2 / variance:.3g}") if variance > 0 else 1.0


def limit_of(statistics: Statistics) -> float:
    """Return a round number that no value exceeds, as the limit of ``data.range``.

    Example:
        >>> limit_of({"mean": [0.0], "std": [1.0], "min": -5.33, "max": 4.9})
        5.4
        >>> limit_of({"mean": [0.0], "std": [1.0], "min": -11.2, "max": 4.9})
        12.0
    """
    largest = max(abs(statistics["min"]), abs(statistics["max"]))
    if largest == 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 1)
    return float(f"{math.ceil(largest / unit) * unit:.6g}")
