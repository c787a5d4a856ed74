"""The results of a sweep: runs, points (means over seeds), and the frontier."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, final

from vqtrain.data.cache import write_whole
from vqtrain.errors import ConfigError
from vqtrain.evaluation import results as evaluation
from vqtrain.evaluation.results import TokenizerResult
from vqtrain.metrics.parts.codebook_usage import is_collapsed
from vqtrain.metrics.parts.declarations import declaration, learn
from vqtrain.ops.json_files import read_json
from vqtrain.shapes import ImageSize
from vqtrain.sweeps.job import SweepJob, read_failure, training_seconds
from vqtrain.sweeps.probes import ENTROPY_RATE, MODEL_RATE, figures_of, is_probed, read_probe
from vqtrain.version import __version__

FILE = "sweep.json"
# The axis over which figures are averaged.
SEED = "seed"

FINISHED, COLLAPSED, FAILED = "finished", "collapsed", "failed"
INTERRUPTED, RUNNING, WAITING = "interrupted", "running", "waiting"
# States in which a run has figures.
DONE = (FINISHED, COLLAPSED)

RATE, USAGE, SECONDS, GFLOPS, PARAMETERS = (
    *("bits_per_pixel", "usage", "train_seconds", "gflops", "parameters"),
)
# Figures of a point besides its metrics, with the titles of their axes.
TITLES = {
    RATE: "bits per pixel",
    USAGE: "share of the ids in use",
    SECONDS: "training time (s)",
    GFLOPS: "GFLOPs per image",
    PARAMETERS: "parameters",
}


@final
@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The results of a run.

    Attributes:
        name: Of its folder.
        values: Those of the axes.
        kind: Of the codebook.
        state: ``finished``, or ``collapsed`` if it has finished with hardly any code in use;
            ``failed``; ``interrupted`` if the next call resumes it; ``waiting`` or ``running``.
        code: The exit code, if it has ended.
        reason: Why it failed, was interrupted or counts as collapsed.
        run_dir: Relative to the sweep's folder.
        image_size: Side of the images, or height and width, in px; this and all below are None or
            empty if unknown.
        tokens_per_image: Ids per image.
        bits_per_pixel: Of the ids.
        metrics: By name, from the evaluation.
        codebook: Its ``ids``, ``usage``, ``perplexity`` and ``entropy_bits`` there.
        parameters: Of the tokenizer.
        gflops: To encode and decode one image; a multiply-add counts 2.
        train_seconds: Training time, without the start of the process.
        probe: Figures of its probe, by name.
    """

    name: str
    values: Mapping[str, object]
    kind: str
    state: str
    code: int | None
    reason: str
    run_dir: str
    image_size: ImageSize | None
    tokens_per_image: int | None
    bits_per_pixel: float | None
    metrics: Mapping[str, float]
    codebook: Mapping[str, float | int] | None
    parameters: int
    gflops: float
    train_seconds: float | None
    probe: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds: its mean, the lowest and the highest."""

    mean: float
    low: float
    high: float


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """A combination of all axes but the seed.

    Attributes:
        label: Names it for people.
        kind: Of the codebook.
        values: Those of the axes.
        jobs: Its runs that have figures.
        collapsed: Number of collapsed runs.
        bits_per_pixel: Of the ids; None for a continuous codebook.
        parameters: Of the tokenizer.
        gflops: Per image.
        train_seconds: Over its seeds; so is all below.
        usage: Share of the ids that occur; None for a continuous codebook.
        metrics: By name.
        frontier: Metrics for which no other point is better at the same or a lower rate.
        probe: Figures of probes, by name, over its seeds.
    """

    label: str
    kind: str
    values: Mapping[str, object]
    jobs: Sequence[str]
    collapsed: int = 0
    bits_per_pixel: float | None
    parameters: int
    gflops: float
    train_seconds: Spread | None
    usage: Spread | None
    metrics: Mapping[str, Spread]
    frontier: Sequence[str]
    probe: Mapping[str, Spread] = field(default_factory=dict)

    def figure(self, key: str) -> Spread | None:
        """Return a figure of ``TITLES``, of the metrics or of a probe, or an axis's number."""
        named = {**self.values, **self.probe, **self.metrics}
        value = getattr(self, key) if key in TITLES else named.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Spread(mean=float(value), low=float(value), high=float(value))
        return value if isinstance(value, Spread) else None


@final
@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The results of a sweep; docs/sweeps.md describes its file.

    Attributes:
        command: The command line.
        axes: The values of each key that has several.
        jobs: The runs, in the order of the grid.
        points: The combinations that have figures.
    """

    format: Literal["vqtrain-sweep"] = "vqtrain-sweep"
    version: Literal[1] = 1
    vqtrain: str = __version__
    command: str
    axes: Mapping[str, Sequence[object]]
    jobs: Sequence[JobResult]
    points: Sequence[Point]

    @property
    def metrics(self) -> list[str]:
        """All metrics of the runs."""
        return list(dict.fromkeys(name for point in self.points for name in point.metrics))

    @property
    def probe(self) -> list[str]:
        """All figures of probes."""
        return list(dict.fromkeys(name for job in self.jobs for name in job.probe))

    @property
    def model_rate(self) -> str | None:
        """The rate of the best models of the ids that were probed; None if there are none."""
        return next((name for name in (MODEL_RATE, ENTROPY_RATE) if name in self.probe), None)

    @property
    def is_whole(self) -> bool:
        """Whether every run has figures."""
        return all(job.state in DONE for job in self.jobs)


def collect(
    jobs: Sequence[SweepJob],
    *,
    command: str,
    axes: Mapping[str, Sequence[object]],
    sweep_dir: Path,
    states: Mapping[str, tuple[str, int | None, str]],
    stages: Sequence[str] = (),
) -> SweepResult:
    """Read the results of the runs.

    Args:
        jobs: The runs.
        command: The command line.
        axes: The values of each key that has several.
        sweep_dir: The sweep's folder.
        states: By name: state, code and reason of runs whose folder has neither results nor a
            failure; all others wait.
        stages: Stages of the probe without which a run is not finished.
    """
    waiting = WAITING, None, ""
    results = [_result(job, sweep_dir, states.get(job.name, waiting), stages) for job in jobs]
    return SweepResult(command=command, axes=axes, jobs=results, points=points_of(results))


def _result(
    job: SweepJob, sweep_dir: Path, known: tuple[str, int | None, str], stages: Sequence[str]
) -> JobResult:
    found = read_evaluation(job.evaluation)
    probe = read_probe(job.probe)
    state, code, reason = known
    failure = read_failure(job.run_dir)
    if failure is not None:
        state, code, reason = FAILED, *failure
        found = probe = None
    elif found is not None and is_probed(job, stages):
        state, code, reason = FINISHED, 0, ""
    codebook = found.codebook if found else None
    figures = None if codebook is None else {"ids": codebook.size, **codebook.figures}
    if codebook is not None and figures is not None:
        figures.pop("top1_share", None)
        perplexity = codebook.perplexity or 0.0
        if state == FINISHED and is_collapsed(
            perplexity, size=codebook.size, tokens=codebook.tokens
        ):
            state = COLLAPSED
            reason = f"{sum(codebook.ids_seen)} ids occur, unevenly: perplexity "
            reason += f"{perplexity:.1f} of {codebook.size}"
    return JobResult(
        name=job.name,
        values=job.values,
        kind=job.kind,
        state=state,
        code=code,
        reason=reason,
        run_dir=job.run_dir.relative_to(sweep_dir).as_posix(),
        image_size=found.image_size if found else None,
        tokens_per_image=found.tokens_per_image if found else None,
        bits_per_pixel=found.bits_per_pixel if found else None,
        metrics={k: v for k, v in found.metrics.items() if v is not None} if found else {},
        codebook=figures,
        parameters=job.parameters,
        gflops=job.flops / 1e9,
        train_seconds=training_seconds(job.run_dir),
        probe=figures_of(probe) if probe else {},
    )


def read_evaluation(folder: Path) -> TokenizerResult | None:
    """Return the results of a run's evaluation; None if they are missing or damaged."""
    try:
        (found,) = evaluation.read_evaluation(folder).tokenizers
    except (ConfigError, ValueError):
        return None
    return found


def points_of(jobs: Sequence[JobResult]) -> list[Point]:
    """Group the runs that differ only by their seed into points, and find the frontier."""
    groups: dict[str, list[JobResult]] = {}
    for job in jobs:
        if job.state in DONE:
            rest = {key: value for key, value in job.values.items() if key != SEED}
            groups.setdefault(json.dumps(rest, default=str), []).append(job)
    points = [_point(group) for group in groups.values()]
    names = dict.fromkeys(name for point in points for name in point.metrics)
    ahead = {name: frontier(points, name) for name in names}
    return [
        replace(point, frontier=[name for name in names if place in ahead[name]])
        for place, point in enumerate(points)
    ]


def _point(jobs: Sequence[JobResult]) -> Point:
    first = jobs[0]
    values = {key: value for key, value in first.values.items() if key != SEED}
    seconds = [job.train_seconds for job in jobs if job.train_seconds is not None]
    uses = [job.codebook["usage"] for job in jobs if job.codebook and "usage" in job.codebook]
    names = [name for name in first.metrics if all(name in job.metrics for job in jobs)]
    probed = [name for name in first.probe if all(name in job.probe for job in jobs)]
    return Point(
        label=label_of(values) or first.kind,
        kind=first.kind,
        values=values,
        jobs=[job.name for job in jobs],
        collapsed=sum(job.state == COLLAPSED for job in jobs),
        bits_per_pixel=first.bits_per_pixel,
        parameters=first.parameters,
        gflops=first.gflops,
        train_seconds=_spread(seconds),
        usage=_spread(uses),
        metrics={name: _of([job.metrics[name] for job in jobs]) for name in names},
        frontier=[],
        probe={name: _of([job.probe[name] for job in jobs]) for name in probed},
    )


def label_of(values: Mapping[str, object]) -> str:
    """Name a combination for people, such as ``ema, codebook.size=64``."""
    return ", ".join(
        str(value) if key == "codebook" else f"{key}={value}" for key, value in values.items()
    )


def _spread(values: Sequence[float]) -> Spread | None:
    return _of(values) if values else None


def _of(values: Sequence[float]) -> Spread:
    low, high = min(values), max(values)
    # The mean of equal numbers may differ from them by rounding.
    mean = min(max(sum(values) / len(values), low), high)
    return Spread(mean=mean, low=low, high=high)


def frontier(points: Sequence[Point], metric: str, *, rate: str = RATE) -> set[int]:
    """Return the indices of the points on the frontier of a metric.

    A point is on it if no other is better at the same or a lower rate. Two points that are equal in
    both can both be on it. Points without a rate are not.

    Args:
        points: The points.
        metric: Name of a metric.
        rate: Name of the figure that is the rate.
    """
    sign = -1.0 if declaration(metric).lower_is_better else 1.0
    return ahead(
        {
            place: (at.mean, sign * point.metrics[metric].mean)
            for place, point in enumerate(points)
            if (at := point.figure(rate)) is not None and metric in point.metrics
        }
    )


def ahead(rated: Mapping[int, tuple[float, float]]) -> set[int]:
    """Return the keys of those that no other beats, by their rate and their quality.

    Example:
        >>> ahead({0: (0.5, 20.0), 1: (0.25, 19.0), 2: (0.5, 18.0)})
        {0, 1}
    """
    return {
        place
        for place, (at, quality) in rated.items()
        if not any(
            other_at <= at and other >= quality and (other_at, other) != (at, quality)
            for other_at, other in rated.values()
        )
    }


def save(result: SweepResult, sweep_dir: Path) -> None:
    """Write ``sweep.json``.

    Raises:
        OSError: If it cannot be written.
    """
    directions = {
        name: "lower" if declaration(name).lower_is_better else "higher" for name in result.metrics
    }
    text = json.dumps({**asdict(result), "metrics": directions}, indent=2, default=str)
    write_whole(sweep_dir / FILE, f"{text}\n".encode())


def read_sweep(sweep_dir: Path) -> SweepResult:
    """Read the results of a sweep, and learn the directions of its metrics.

    Raises:
        ConfigError: If they cannot be read, or are of another version.
    """
    learn(read_json(_Directions, sweep_dir / FILE).metrics)
    return read_json(SweepResult, sweep_dir / FILE)


@dataclass(frozen=True, kw_only=True)
class _Directions:
    metrics: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Axes:
    axes: Mapping[str, object]


def read_axes(sweep_dir: Path) -> list[str] | None:
    """Return the keys with several values in the sweep of a folder; None if there is no sweep."""
    try:
        return list(read_json(_Axes, sweep_dir / FILE).axes)
    except ConfigError:
        return None
