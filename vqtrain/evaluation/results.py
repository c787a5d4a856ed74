"""What an evaluation has written: ``evaluation.json`` and the values of each image, as types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, final

import numpy as np
from jaxtyping import Float64
from pydantic import Field, TypeAdapter

from vqtrain.data.faults import Fault
from vqtrain.evaluation.cost import Cost
from vqtrain.evaluation.tables import JSON_FILE
from vqtrain.metrics.parts.declarations import learn
from vqtrain.ops.json_files import read_json
from vqtrain.shapes import ImageSize


@final
@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """How much an id says about that of its neighbor, in bits: as counted, and if by chance."""

    mutual_information_bits: float
    by_chance_bits: float


@final
@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ids that are often next to each other; bits are their pointwise mutual information."""

    neighbor: str
    id: int
    neighbor_id: int
    count: int
    bits: float


@final
@dataclass(frozen=True, kw_only=True)
class WorstId:
    """An id with a large share of the squared error of all pixels."""

    id: int
    share_of_tokens: float
    share_of_error: float


@final
@dataclass(frozen=True, kw_only=True)
class GridUse:
    """What the ids of a codebook, or of a scale, do in the images.

    Attributes:
        name: What it is called.
        shape: Rows and columns.
        position_entropy_bits: Of the ids at each position; None of too many.
        left: Between an id and the one to its left; None if not counted, as ``upper``.
        upper: Between an id and the one above.
        pairs: The strongest of both.
        worst_ids: From the largest share of the error on.
    """

    name: str
    shape: Sequence[int]
    position_entropy_bits: Sequence[Sequence[float]] | None = None
    left: Neighbor | None = None
    upper: Neighbor | None = None
    pairs: Sequence[Pair] = ()
    worst_ids: Sequence[WorstId] = ()


@final
@dataclass(frozen=True, kw_only=True)
class CodebookUse:
    """How the ids of a tokenizer are used.

    Attributes:
        size: Ids of each codebook.
        tokens: That were counted, for each codebook.
        ids_seen: How many ids occur, by codebook.
        num_codebooks: Codebooks.
        histogram: By codebook, how often each id occurs; None of a large one.
        usage: Share of the ids that occur; like all that follows, the mean over codebooks.
        usage_of_tokens: Of a large codebook, share of the ids that so many tokens can reach.
        perplexity: Of the ids.
        top1_share: Share of the most frequent id.
        entropy_bits: Of the ids.
        grids: What ids do, of each codebook or scale.
        left_out: What was not measured of it, and why.
    """

    size: int
    tokens: int = 0
    ids_seen: Sequence[int] = ()
    num_codebooks: int = 1
    histogram: Sequence[Sequence[int]] | None = None
    usage: float | None = None
    usage_of_tokens: Annotated[float | None, Field(alias="usage@tokens")] = None
    perplexity: float | None = None
    top1_share: float | None = None
    entropy_bits: float | None = None
    grids: Sequence[GridUse] = ()
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, described: Mapping[str, object]) -> "CodebookUse":
        """Read what ``describe_ids`` says."""
        return TypeAdapter(cls).validate_python(described)

    @property
    def figures(self) -> dict[str, float]:
        """The figures that are known, by their names in the file."""
        named = {
            "usage": self.usage,
            "usage@tokens": self.usage_of_tokens,
            "perplexity": self.perplexity,
            "entropy_bits": self.entropy_bits,
            "top1_share": self.top1_share,
        }
        return {name: value for name, value in named.items() if value is not None}


@final
@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """What a baseline reached on the same images."""

    bits_per_pixel: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    by_frame: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class TokenizerResult:
    """What a tokenizer reached; see docs/evaluation.md for the file."""

    name: str = ""
    image_size: ImageSize
    count: int = 0
    tokens_per_image: int = 0
    bits_per_pixel: float | None = None
    kbit_per_second: float | None = None
    metrics: Mapping[str, float | None]
    by_frame: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    protocols: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    codebook: CodebookUse | None = None
    baselines: Mapping[str, BaselineResult] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    per_image: str = ""
    skipped: Sequence[Fault] = ()


@final
@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Tokenizers that were measured on the same images."""

    images: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    tokenizers: Annotated[Sequence[TokenizerResult], Field(min_length=1)]


@final
@dataclass(frozen=True, kw_only=True)
class ImageValues:
    """What was measured of each image: their keys, and by name a value for each of them."""

    keys: Sequence[str] = ()
    values: Mapping[str, Float64[np.ndarray, " n"]] = field(default_factory=dict)


def read_evaluation(folder: Path) -> EvaluationResult:
    """Read the results of an evaluation, and learn the directions of its metrics.

    Raises:
        ConfigError: If that cannot be done.
    """
    found = read_json(EvaluationResult, folder / JSON_FILE)
    for tokenizer in found.tokenizers:
        learn({name: rule.get("better") for name, rule in tokenizer.protocols.items()})
    return found


def read_image_values(file: Path) -> ImageValues:
    """Read the values of each image; none if that cannot be done."""
    from pyarrow import ArrowException, parquet

    try:
        columns = parquet.read_table(file).to_pydict()
    except (OSError, ArrowException):
        return ImageValues()
    keys = [str(key) for key in columns.pop("key", [])]
    values = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return ImageValues(keys=keys, values=values)
