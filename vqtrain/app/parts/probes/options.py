"""What a user asks of ``vqtrain probe``, besides images and tokenizers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, final

from vqtrain.app.parts.metrics import reconstruction_metrics
from vqtrain.build import bind
from vqtrain.errors import require
from vqtrain.generation.results import STAGES
from vqtrain.generation.sampling import Sampling
from vqtrain.metrics.base import Metric
from vqtrain.ranges import above, at_least, check, check_fields, one_of, within
from vqtrain.sequence import ORDERS

# Measured of decoded images unless others are named; each is left out without its weights.
METRICS = ("psnr", "ssim", "lpips", "fid")


@final
@dataclass(frozen=True, kw_only=True)
class PerturbOptions:
    """How ids are perturbed; its fields are keys below ``perturb``.

    Raises:
        ConfigError: If a value is impossible.
    """

    shares: Sequence[Annotated[float, within(0, 1)]]
    neighbors: Annotated[int, at_least(1)]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "perturb")
        require(
            len(self.shares) > 0 and len({*self.shares}) == len(self.shares),
            f"perturb.shares must be different numbers, got {self.shares}",
        )


@final
@dataclass(frozen=True, kw_only=True)
class TransformerOptions:
    """How large a transformer is trained, and how; its fields are keys below ``transformer``.

    Raises:
        ConfigError: If a value is impossible.
    """

    budget: Annotated[float, above(0)]
    depth: Annotated[int, at_least(1)] | None
    dim: Annotated[int, at_least(32)] | None
    masked: bool
    order: Annotated[str, one_of(*ORDERS)]
    condition: str | None
    batch_size: Annotated[int, at_least(1)]
    lr: Annotated[float, above(0)] | None
    accumulate: Annotated[int, at_least(1)]
    max_time: str | None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "transformer")
        require(
            self.dim is None or self.dim % 32 == 0,
            f"transformer.dim must be a multiple of 32, got {self.dim}",
        )


@final
@dataclass(frozen=True, kw_only=True)
class SamplesOptions:
    """How images are drawn; its fields are keys below ``samples``.

    Raises:
        ConfigError: If a value is impossible.
    """

    count: Annotated[int, at_least(1)]
    temperature: float
    top_k: int | None
    top_p: float | None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "samples")
        assert self.sampling is not None, "it is built to be checked"

    @cached_property
    def sampling(self) -> Sampling:
        """With what ids are drawn."""
        own = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return bind(Sampling, own, where="samples")


@final
@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What else was asked for; its fields are keys.

    Raises:
        ConfigError: If a value is impossible.
    """

    probe: list[str] | str
    devices: Annotated[int, at_least(1)]
    seed: Annotated[int, at_least(0)]
    max_bad_fraction: Annotated[float, within(0, 1)]
    metrics: list[str | Mapping[str, object]] | str | None
    perturb: Mapping[str, object]
    transformer: Mapping[str, object]
    samples: Mapping[str, object]
    weights: Mapping[str, str | None]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check("probe", self.stages, Sequence[Annotated[str, one_of(*STAGES)]])
        require(bool(self.stages), f"probe must name at least one of {', '.join(STAGES)}")
        for each in (self.perturbing, self.training, self.sampling):
            assert each is not None, "it is built to be checked"

    @cached_property
    def stages(self) -> list[str]:
        """What is measured, in its order."""
        words = self.probe if isinstance(self.probe, list) else self.probe.split(",")
        known = [stage for stage in STAGES if stage in words]
        return [*known, *(word for word in words if word not in STAGES)]

    @cached_property
    def perturbing(self) -> PerturbOptions:
        """How ids are perturbed."""
        return bind(PerturbOptions, self.perturb, where="perturb")

    @cached_property
    def training(self) -> TransformerOptions:
        """How the transformer is trained."""
        return bind(TransformerOptions, self.transformer, where="transformer")

    @cached_property
    def sampling(self) -> SamplesOptions:
        """How images are drawn."""
        return bind(SamplesOptions, self.samples, where="samples")

    @property
    def training_figures(self) -> dict[str, object]:
        """The keys below ``transformer`` that decide its figures."""
        free = ("max_time", "accumulate")
        return {key: value for key, value in asdict(self.training).items() if key not in free}

    def described(self, stages: Sequence[str]) -> dict[str, object]:
        """Write the keys that decide the figures of some stages, as a user types them."""
        sections = {
            "perturb": asdict(self.perturbing),
            "transformer": self.training_figures,
            "samples": asdict(self.sampling),
        }
        own = {stage: sections[stage] for stage in stages if stage in sections}
        return {"seed": self.seed, "metrics": self.metrics, **own}

    def build_metrics(self) -> list[Metric]:
        """Build the metrics of decoded images, without their weights.

        Raises:
            ConfigError: If one cannot be built, or measures no reconstructions.
        """
        return reconstruction_metrics(METRICS if self.metrics is None else self.metrics)
