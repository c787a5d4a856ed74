"""Code lengths of held-out ids, under models that count how often ids occur, and where."""

import lzma
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from vqtrain.errors import require
from vqtrain.generation.form import TokenForm
from vqtrain.generation.results import EntropyResult
from vqtrain.token_ids import as_token_ids

# Of more samples, evenly spaced ones are counted: sorting more ids takes minutes.
MAX_TOKENS = 2**24
MAX_COMPRESSED = 2**20  # LZMA takes a second for so many
HELD_OUT = 10  # of so many training samples one is kept for the weights
DISCOUNT = 0.75  # what absolute discounting takes off each count
NUM_ITERATIONS = 30
PRIOR = 10.0  # observations that the weights of all contexts count for in those of a few
CLASSES = 24  # of contexts, by how often they were seen: 0, 1, 2 to 3, 4 to 7, ...

Ids = Int64[np.ndarray, "_b _n"]
Flat = Int64[np.ndarray, " _m"]
Shares = Float64[np.ndarray, " _m"]
Weights = Float64[np.ndarray, "_classes _parts"]


def measure_entropy(
    form: TokenForm,
    train_ids: Shaped[Tensor, " n *tokens"],
    val_ids: Shaped[Tensor, " m *val_tokens"],
    *,
    num_positions: int,
) -> EntropyResult:
    """Measure how many bits held-out ids take under models of counts.

    Each model mixes distributions that were counted in the training ids: ``marginal`` those of the
    ids of a codebook or scale, ``position`` also those at each position, ``context`` also those
    after each neighbor (``TokenForm.contexts``) and each pair of neighbors. As the ids are held out
    and each model assigns probabilities that sum to 1, none gives less than the entropy of the
    source, but for the noise of the held-out sample; with few samples of many ids they give more.
    ``compressed`` is the size of up to 2^20 training ids under LZMA, in bytes or pairs of them.

    Args:
        form: The form of the ids of a sample.
        train_ids: Of at least two training samples, integers of any width.
        val_ids: Of at least one other sample.
        num_positions: Pixels of an image, by which the bits of all its ids are divided.

    Raises:
        ConfigError: If ids do not fit the form, or are of too few samples.

    References:
        Discounting: Ney et al. 1994, doi:10.1006/csla.1994.1001. Weights that depend on the counts
        of a context, found on a held-out part: Jelinek and Mercer 1980.
    """
    began = time.perf_counter()
    train, val = _checked(form, train_ids), _checked(form, val_ids)
    require(len(train) > 1, f"code lengths need ids of two training samples, got {len(train)}")
    require(len(val) > 0, "code lengths need ids of a held-out sample")
    bits = {**_mixed_bits(form, train, val), "compressed": _compressed_bits(train)}
    per_pixel = form.num_tokens / num_positions
    return EntropyResult(
        bits_per_token=bits,
        bits_per_pixel={name: value * per_pixel for name, value in bits.items()},
        seconds=time.perf_counter() - began,
    )


@final
class Counts:
    """How often ids were seen in contexts.

    Args:
        contexts: The number of the context of each id.
        ids: The ids.
        size: More than the largest id.
    """

    def __init__(self, contexts: Flat, ids: Flat, size: int) -> None:
        self._size = size
        self._contexts, place = np.unique(contexts, return_inverse=True)
        self._keys, self._counts = np.unique(place * size + ids, return_counts=True)
        self._totals = np.bincount(place)
        self._distinct = np.bincount(self._keys // size)

    def find(self, contexts: Flat, ids: Flat) -> tuple[Flat, Flat, Flat]:
        """Return of each query how often it was seen, and its context, and with how many ids."""
        context, is_seen = _find(self._contexts, contexts)
        place, is_known = _find(self._keys, context * self._size + ids)
        count = np.where(is_seen & is_known, self._counts[place], 0)
        total, distinct = self._totals[context], self._distinct[context]
        return count, np.where(is_seen, total, 0), np.where(is_seen, distinct, 0)


def _mixed_bits(form: TokenForm, train: Ids, val: Ids) -> dict[str, float]:
    """Return bits a token of held-out ids under each model."""
    # Only ids that occur are numbered, so that numbers of pairs of contexts stay small.
    seen, numbers = np.unique(np.concatenate([train, val]), return_inverse=True)
    numbers = numbers.reshape(-1, form.num_tokens)
    train, val = numbers[: len(train)], numbers[len(train) :]
    is_held = np.arange(len(train)) % min(HELD_OUT, len(train)) == 0
    weights = [
        stage.weights for stage in _predict(form, train[~is_held], train[is_held], len(seen), None)
    ]
    stages = _predict(form, train, val, len(seen), weights)
    bits = [float(-np.log2(stage.shares).mean()) for stage in stages]
    return {"marginal": bits[0], "position": bits[1], "context": bits[-1]}


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """A mixture of distributions.

    Attributes:
        weights: Of what the stage before predicts, and of each kind of context, by classes.
        shares: The probability of each query.
    """

    weights: Weights
    shares: Shares


def _predict(
    form: TokenForm, known: Ids, queries: Ids, size: int, weights: Sequence[Weights] | None
) -> list[Stage]:
    """Predict queries from known ids, with weights that are learned from the queries if None.

    Each stage mixes what the one before it predicts with distributions in more specific contexts,
    each of which is discounted in favor of the former.
    """
    ids, wanted = known.ravel(), queries.ravel()
    before = np.full(len(wanted), 1 / form.size)
    found: list[Stage] = []
    both = zip(_contexts(form, known, size), _contexts(form, queries, size), strict=True)
    for own, asked in both:
        parts, most = [before], np.zeros_like(wanted)
        for there, here in zip(own, asked, strict=True):
            count, total, distinct = Counts(there, ids, size).find(here, wanted)
            parts.append(discounted(count, total, distinct, before))
            most = np.maximum(most, total)
        shares = np.stack(parts)
        # 0, 1, 2 to 3, 4 to 7, ... of each level
        often = np.frexp(most)[1].clip(max=CLASSES - 1)
        classes = np.resize(_levels(form), len(wanted)) * CLASSES + often
        learned = (
            weights[len(found)] if weights else learn(shares, classes, CLASSES * len(form.levels))
        )
        before = np.einsum("pm,mp->m", shares, learned[classes])
        found.append(Stage(weights=learned, shares=before))
    return found


def _contexts(form: TokenForm, ids: Ids, size: int) -> Iterator[list[Flat]]:
    """Number the contexts of all ids: for each stage, those of each kind."""
    level = np.resize(_levels(form), ids.shape)
    yield [level.ravel()]
    yield [np.resize(np.arange(form.num_tokens), ids.size)]
    none = np.full((len(ids), 1), size)  # stands at place -1
    neighbors = [np.concatenate([ids, none], axis=1)[:, row] for row in form.contexts().numpy()]
    base = size + 1
    yield [(level * base + each).ravel() for each in neighbors]
    if len(neighbors) > 1:
        yield [((level * base + a) * base + b).ravel() for a, b in combinations(neighbors, 2)]


def _levels(form: TokenForm) -> Int64[np.ndarray, " _n"]:
    """Return the number of the codebook or scale of each id of a sample."""
    lengths = [math.prod(grid) for grid in form.levels]
    return np.repeat(np.arange(len(lengths)), lengths)


def discounted(count: Flat, total: Flat, distinct: Flat, lower: Shares) -> Shares:
    """Return probabilities in contexts by absolute discounting; ``lower`` of unseen contexts.

    Example:
        >>> seen, total, distinct = np.array([3, 0]), np.array([4, 4]), np.array([2, 2])
        >>> discounted(seen, total, distinct, np.array([0.5, 0.5]))  # (3 - .75 + .75 * 2 * .5) / 4
        array([0.75  , 0.1875])
    """
    kept = np.maximum(count - DISCOUNT, 0) + DISCOUNT * distinct * lower
    return np.where(total > 0, kept / np.maximum(total, 1), lower)


def learn(shares: Float64[np.ndarray, "_parts _m"], classes: Flat, num_classes: int) -> Weights:
    """Find the weights of a mixture that make observations likeliest, for each of their classes.

    Args:
        shares: The probability of each observation by each part of the mixture.
        classes: Of each observation; those of few observations get nearly the weights of all.
        num_classes: How many there are.

    References:
        Expectation maximization; Jelinek and Mercer 1980.
    """
    overall = np.full((1, len(shares)), 1 / len(shares))
    for _ in range(NUM_ITERATIONS):
        overall = _responsible(shares, overall, np.zeros_like(classes), 0.0)
    weights = np.repeat(overall, num_classes, axis=0)
    for _ in range(NUM_ITERATIONS):
        weights = _responsible(shares, weights, classes, PRIOR * overall)
    return weights


def _responsible(
    shares: Float64[np.ndarray, "_parts _m"],
    weights: Weights,
    classes: Flat,
    prior: Weights | float,
) -> Weights:
    """Return for how many of the observations of a class each part is responsible, as shares."""
    parts = weights[classes].T * shares
    parts /= parts.sum(axis=0)
    sums = np.stack([np.bincount(classes, part, len(weights)) for part in parts], axis=1) + prior
    return sums / sums.sum(axis=1, keepdims=True)


def _checked(form: TokenForm, token_ids: Shaped[Tensor, " n *tokens"]) -> Ids:
    """Return ids as rows, of so many samples that they can be sorted soon."""
    shape = list(token_ids.shape[1:])
    require(
        shape == list(form.token_shape),
        f"the ids of a sample have shape {list(form.token_shape)}, got {shape}",
    )
    stride = -(-token_ids.numel() // MAX_TOKENS) or 1
    return as_token_ids(token_ids[::stride], form.size).flatten(1).cpu().numpy()


def _compressed_bits(ids: Ids) -> float:
    """Return bits a token of ids under LZMA, without a header."""
    stride = -(-ids.size // MAX_COMPRESSED)
    packed = ids[::stride].astype(np.min_scalar_type(int(ids.max())))
    aligned = packed.itemsize.bit_length() - 1
    filters = [
        {"id": lzma.FILTER_LZMA2, "preset": 6, "lp": aligned, "lc": 3 - aligned, "pb": aligned}
    ]
    size = len(lzma.compress(packed.tobytes(), format=lzma.FORMAT_RAW, filters=filters))
    return 8 * size / packed.size


def _find(keys: Flat, wanted: Flat) -> tuple[Flat, Bool[np.ndarray, " _m"]]:
    """Return the place of each wanted key among sorted ones, and whether it is there."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return place, keys[place] == wanted
