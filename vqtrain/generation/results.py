"""What probes have found: ``probe.json``, as types."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import BeforeValidator, Field

from vqtrain.data.cache import write_whole
from vqtrain.ops.json_files import read_json
from vqtrain.shapes import ImageSize
from vqtrain.version import __version__

FILE = "probe.json"
# The stages of a probe, in their order: fields of TokenizerProbe.
STAGES = ("entropy", "perturb", "transformer", "samples")

# What is no number is null in the file.
Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
Figures = Mapping[str, Figure]


@final
@dataclass(frozen=True, kw_only=True)
class EntropyResult:
    """Code lengths of ids without a trained model; see ``measure_entropy``.

    Attributes:
        bits_per_token: Of held-out ids by models that count: ``marginal``, ``position`` and
            ``context``; of training ids by LZMA: ``compressed``.
        bits_per_pixel: The same, of all ids of an image, by its pixels.
        seconds: What this took.
    """

    bits_per_token: Figures
    bits_per_pixel: Figures
    seconds: Figure


@final
@dataclass(frozen=True, kw_only=True)
class PerturbPoint:
    """How good decoded images are if a share of their ids is replaced by near ones.

    Attributes:
        share: Of the ids, in [0, 1].
        metrics: By name.
    """

    share: Figure
    metrics: Figures


@final
@dataclass(frozen=True, kw_only=True)
class PerturbResult:
    """How good decoded images are if ids are replaced by near ones.

    Attributes:
        neighbors: Nearest other codes that each new one is drawn from.
        points: By growing share.
        seconds: What this took.
    """

    neighbors: int
    points: Sequence[PerturbPoint]
    seconds: Figure

    @property
    def middle(self) -> PerturbPoint | None:
        """The point at the middle share, whose PSNR compares tokenizers; None if there are none."""
        return self.points[len(self.points) // 2] if self.points else None


@final
@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What a validation in the course of a training has found."""

    step: int
    bits_per_pixel: Figure


@final
@dataclass(frozen=True, kw_only=True)
class TransformerResult:
    """A transformer trained on the ids; its figures are those of the best validation.

    Attributes:
        kind: ``causal``, ``masked`` or ``next_scale``.
        is_bound: Whether the code length is an upper bound; else it is exact.
        depth: Blocks.
        dim: Channels.
        parameters: Of the model.
        steps: That it was trained for.
        flops: Of the whole training.
        images_seen: With repetitions.
        bits_per_token: Code length of the held-out ids.
        bits_per_pixel: Of all ids of a held-out image, by its pixels.
        curve: Of all validations.
        seconds: What this took.
    """

    kind: Literal["causal", "masked", "next_scale"]
    is_bound: bool
    depth: int
    dim: int
    parameters: int
    steps: int
    flops: Figure
    images_seen: int
    bits_per_token: Figure
    bits_per_pixel: Figure
    curve: Sequence[CurvePoint]
    seconds: Figure


@final
@dataclass(frozen=True, kw_only=True)
class SamplesResult:
    """Images that were sampled.

    Attributes:
        count: How many.
        metrics: By name; none without the weights that they need.
        sampling: With what they were drawn.
        seconds: What this took.
    """

    count: int
    metrics: Figures
    sampling: Mapping[str, object]
    seconds: Figure


@final
@dataclass(frozen=True, kw_only=True)
class TokenizerProbe:
    """What probes of a tokenizer have found; None of those that were not made.

    Attributes:
        name: The name of its folder.
        path: Where it is from, as the user wrote it.
        kind: Of its codebook.
        size: Ids of each codebook.
        num_codebooks: Codebooks.
        token_shape: Of the ids of an image.
        image_size: Side of the images, or height and width, in px.
        tokens_per_image: Ids of an image.
        bits_per_pixel: Of the ids as they are stored.
        reconstruction: By metric, how good the unchanged reconstructions are.
        entropy: Code lengths of models that count.
        perturb: Ids replaced by near ones.
        transformer: The trained model.
        samples: What was drawn from it.
    """

    name: str
    path: str
    kind: str
    size: Annotated[int, Field(ge=1)]
    num_codebooks: Annotated[int, Field(ge=1)]
    token_shape: Sequence[int]
    image_size: ImageSize
    tokens_per_image: Annotated[int, Field(ge=1)]
    bits_per_pixel: Figure
    reconstruction: Figures = field(default_factory=dict)
    entropy: EntropyResult | None = None
    perturb: PerturbResult | None = None
    transformer: TransformerResult | None = None
    samples: SamplesResult | None = None


@final
@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """Tokenizers that were probed with the same images and settings.

    Attributes:
        format: What the file is.
        version: Of the format.
        vqtrain: The version that has written it.
        images: Where the images are from, how many there are, and how they are told from others.
        settings: With what all was computed.
        tokenizers: The tokenizers.
    """

    format: Literal["vqtrain-probe"] = "vqtrain-probe"
    version: Literal[1] = 1
    vqtrain: str = __version__
    images: Mapping[str, object]
    settings: Mapping[str, object]
    tokenizers: Annotated[Sequence[TokenizerProbe], Field(min_length=1)]


def write_probe(report: ProbeReport, folder: Path) -> None:
    """Write ``probe.json``, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    text = json.dumps(_finite(asdict(report)), indent=2, allow_nan=False)
    write_whole(folder / FILE, f"{text}\n".encode())


def read_probe(folder: Path) -> ProbeReport:
    """Read ``probe.json``, which is not trusted.

    Raises:
        ConfigError: If it cannot be read, or is no such file of this version.
    """
    return read_json(ProbeReport, folder / FILE)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
