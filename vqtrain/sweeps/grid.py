"""From keys with several values to the runs of a sweep, each configuration once."""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from vqtrain.errors import ConfigError
from vqtrain.sweeps.job import JOBS, MAX_JOBS, OWN_KEYS, SweepJob, name_jobs
from vqtrain.sweeps.results import read_axes

FOLDER = Path("sweeps")
# Keys that do not change a run: where it is and what it is called.
NAMES = (*OWN_KEYS, "name")

Config = Mapping[str, Any]
Words = Sequence[str]


@final
@dataclass(frozen=True, kw_only=True)
class Checked:
    """What is known of the tokenizer of a run that is possible.

    Attributes:
        parameters: Their number.
        flops: Of encoding and decoding one image.
        has_ids: Whether it has ids, which a continuous codebook has not.
    """

    parameters: int
    flops: int
    has_ids: bool


@final
@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of a sweep.

    Attributes:
        sweep_dir: Where the runs are.
        axes: The values of each key that has several, in the order typed.
        jobs: The runs, each configuration once.
        equal: Number of combinations that were left out as duplicates of another configuration.
    """

    sweep_dir: Path
    axes: Mapping[str, Sequence[object]]
    jobs: Sequence[SweepJob]
    equal: int


def expand(
    choices: Sequence[Words],
    *,
    values_of: Callable[[Words], dict[str, object]],
    compose: Callable[[Words], tuple[Config, Words]],
    check: Callable[[Config], Checked],
    groups: Sequence[str],
    sweep_dir: Path | None,
) -> Grid:
    """Compose and check a run for each combination of values.

    Args:
        choices: For each typed key, the words that it expands to.
        values_of: From the words of a run to the values of its axes.
        compose: From the words of a run to its configuration and its command line.
        check: From a configuration to what is known of its tokenizer.
        groups: Keys whose value alone names a run, such as ``codebook``.
        sweep_dir: Where the runs are; None for a folder called like the ``name`` of the first run.

    Raises:
        VqtrainError: If any run is invalid.
    """
    combinations = list(itertools.islice(itertools.product(*choices), MAX_JOBS + 1))
    if len(combinations) > MAX_JOBS:
        raise ConfigError(f"a sweep has at most {MAX_JOBS:,} runs: give fewer values")
    values = [values_of(words) for words in combinations]
    found: dict[str, SweepJob] = {}
    home = sweep_dir
    for words, name, each in zip(combinations, name_jobs(values, groups), values, strict=True):
        try:
            config, typed = compose(words)
            if identity(config) in found:
                continue
            checked = check(config)
        except ConfigError as error:
            shown = " ".join(f"{key}={value}" for key, value in each.items())
            error.args = (f"{shown}: {error}",)
            raise
        home = home or FOLDER / str(config["name"])  # experiments may have different names
        found[identity(config)] = SweepJob(
            name=name,
            values=each,
            config=config,
            words=typed,
            run_dir=home / JOBS / name,
            parameters=checked.parameters,
            flops=checked.flops,
            has_ids=checked.has_ids,
        )
    assert home is not None, "there is a first run"
    return Grid(
        sweep_dir=home,
        axes={key: _distinct(each[key] for each in values) for key in values[0]},
        jobs=list(found.values()),
        equal=len(combinations) - len(found),
    )


def identity(config: Config) -> str:
    """Return text that is equal for two configurations of the same run, and only for those."""
    kept = {key: value for key, value in config.items() if key not in NAMES}
    return json.dumps(kept, sort_keys=True)


def refuse_others(grid: Grid, difference: Callable[[SweepJob], str]) -> None:
    """Refuse a folder with another sweep, or with runs of other settings.

    More values of the same keys are allowed.

    Args:
        grid: The sweep.
        difference: Describes how a run differs from the one in its folder; empty if it does not.

    Raises:
        ConfigError: If the folder holds another sweep or run.
    """
    known = read_axes(grid.sweep_dir)
    if known is not None and set(known) != set(grid.axes):
        raise ConfigError(
            f"{grid.sweep_dir} holds a sweep over {', '.join(known)}, this one is over "
            f"{', '.join(grid.axes)}: give another sweep_dir"
        )
    for job in grid.jobs:
        if job.run_dir.exists() and not job.run_dir.is_dir():
            raise ConfigError(f"{job.run_dir} is a file: it must be a run directory, or not exist")
        if what := difference(job):
            raise ConfigError(
                f"{job.run_dir} holds a run with other settings: {what}; give another sweep_dir, "
                "or delete it"
            )


def _distinct(values: Iterable[object]) -> list[object]:
    """Return values without repetition, in order; they may be lists, which cannot be hashed."""
    return list({json.dumps(value, default=str): value for value in values}.values())
