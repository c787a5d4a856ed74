"""From a command line with several values to runs, each composed and checked."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from vqtrain.app.build import Settings, begin_from, build_metrics, build_module, check_some
from vqtrain.app.compose import CommandLine, compose, group_choices, is_path_key, parse
from vqtrain.app.resume import differences
from vqtrain.data.index import ImageIndex
from vqtrain.data.sources import training_and_validation
from vqtrain.errors import ConfigError, require
from vqtrain.evaluation.cost import count_flops, count_parameters
from vqtrain.sweeps.job import JOBS, SweepJob, name_jobs
from vqtrain.sweeps.results import read_axes
from vqtrain.training.results import CONFIG
from vqtrain.training.run_directory import read_config

FOLDER = Path("sweeps")
MAX_JOBS = 10_000
# What the sweep decides for each run.
OWN_KEYS = ("run_dir", "resume")
# What sets no run apart: where it is and what it is called.
NAMES = (*OWN_KEYS, "name")


@final
@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a sweep is made of.

    Attributes:
        sweep_dir: Where the runs are.
        axes: The values of each key that has several, in the order typed.
        jobs: The runs, each configuration once.
        equal: How many combinations were left out, as others have the same configuration.
    """

    sweep_dir: Path
    axes: Mapping[str, Sequence[object]]
    jobs: Sequence[SweepJob]
    equal: int


def read_grid(command_line: CommandLine, sweep_dir: Path | None, *, is_here: bool) -> Grid:
    """Expand the keys with several values, and compose and check every run.

    Args:
        command_line: What the user typed, without the keys of the sweep.
        sweep_dir: Where the runs are; None is a folder named by ``name``, that of the first run.
        is_here: Whether they run on this machine, whose devices are then checked.

    Raises:
        VqtrainError: If any run cannot be.
    """
    groups = group_choices(command_line.config_dir)
    options = [choices_of(word, groups) for word in command_line.overrides]
    axes = [words[0].partition("=")[0] for words in options if len(words) > 1]
    _check_keys(command_line, axes)
    combinations = list(itertools.islice(itertools.product(*options), MAX_JOBS + 1))
    if len(combinations) > MAX_JOBS:
        raise ConfigError(f"a sweep has at most {MAX_JOBS:,} runs: give fewer values")
    values = [_values_of(words, axes) for words in combinations]
    found: dict[str, SweepJob] = {}
    home = sweep_dir
    checks = Checks(is_here=is_here)
    for words, name, each in zip(
        combinations, name_jobs(values, list(groups)), values, strict=True
    ):
        typed = replace(command_line, overrides=words)
        try:
            config = compose("train", typed)
            if identity(config) in found:
                continue
            parameters, flops = checks.check(config)
        except ConfigError as error:
            error.args = (f"{_listed(each)}: {error}",)
            raise
        home = home or FOLDER / str(config["name"])  # experiments may differ in it
        found[identity(config)] = SweepJob(
            name=name,
            values=each,
            config=config,
            words=command_words(typed),
            run_dir=home / JOBS / name,
            parameters=parameters,
            flops=flops,
        )
    assert home is not None, "there is a first run"
    return Grid(
        sweep_dir=home,
        axes={key: _distinct(each[key] for each in values) for key in values[0]},
        jobs=list(found.values()),
        equal=len(combinations) - len(found),
    )


def _check_keys(command_line: CommandLine, axes: Sequence[str]) -> None:
    """Refuse keys that the sweep decides, and several values where there can be one alone."""
    typed = [*command_line.paths, *map(_key_of, command_line.overrides)]
    for key in OWN_KEYS:
        if key in typed:
            raise ConfigError(f"{key} is decided by the sweep: leave it out, and give sweep_dir")
    if not axes:
        raise ConfigError("name a key with several values, such as codebook.size=1024,4096")
    for key in map(_key_of, axes):
        require(key != "name", "name cannot have several values: it names the sweep")
        require(not is_path_key(key), f"{key} cannot have several values: it is a path")


def _key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def choices_of(word: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the words that a word with several values stands for; one without stands for itself.

    Raises:
        ConfigError: If it cannot be read, or stands for no list of values.
    """
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        parse(word)  # says how it should be written
        raise
    if not override.is_sweep_override():
        return [word]
    key = word.partition("=")[0]
    if override.is_interval_sweep():
        raise ConfigError(f"{word} has no end of values: list them, as in {key}=0.1,0.2")
    sweep = override.value()
    if isinstance(sweep, Glob):
        if key not in groups:
            raise ConfigError(f"{word}: glob is for groups, such as codebook='glob(*)'")
        values = sweep.filter(list(groups[key]))
    else:
        values = list(itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    if not values:
        raise ConfigError(f"{word} stands for no value")
    return [f"{key}={value}" for value in values]


def command_words(command_line: CommandLine) -> list[str]:
    """Write a command line as it can be typed."""
    words = [f"{key}={value}" for key, value in command_line.paths.items()]
    if command_line.config_dir is not None:
        words.append(f"--config-dir={command_line.config_dir}")
    return [*command_line.overrides, *words]


def identity(config: Mapping[str, Any]) -> str:
    """Return what two configurations of the same run have in common, and no others."""
    kept = {key: value for key, value in config.items() if key not in NAMES}
    return json.dumps(kept, sort_keys=True)


def refuse_others(grid: Grid) -> None:
    """Refuse a folder of another sweep, or in which there are other runs than belong there.

    More values of the same keys are no other sweep.

    Raises:
        ConfigError: If it is one.
    """
    known = read_axes(grid.sweep_dir)
    if known is not None and set(known) != set(grid.axes):
        raise ConfigError(
            f"{grid.sweep_dir} holds a sweep over {', '.join(known)}, this one is over "
            f"{', '.join(grid.axes)}: give another sweep_dir"
        )
    for job in grid.jobs:
        _refuse_other(job)


def _refuse_other(job: SweepJob) -> None:
    if job.run_dir.exists() and not job.run_dir.is_dir():
        raise ConfigError(f"{job.run_dir} is in the way: it must be a run directory, or nothing")
    if not (job.run_dir / CONFIG).exists():
        return
    refused, warned = differences(read_config(job.run_dir), job.config)
    if refused or "trainer.max_steps" in warned:
        what = ", ".join(refused) or f"trainer.max_steps is {job.max_steps} now"
        raise ConfigError(
            f"{job.run_dir} holds a run with other settings: {what}; give another sweep_dir, or "
            "delete it"
        )


@final
class Checks:
    """Builds what a run needs, once for all that need the same, to see whether it can be.

    Args:
        is_here: Whether the runs will be on this machine, whose devices are then checked.
    """

    def __init__(self, *, is_here: bool) -> None:
        self._is_here = is_here
        self._built: dict[str, tuple[int, int]] = {}
        self._data: set[str] = set()

    def check(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Check a run, and return its tokenizer's parameters, and FLOPs of an image.

        Raises:
            VqtrainError: If it cannot be.
        """
        if not self._is_here:
            trainer = {**config["trainer"], "accelerator": "cpu", "devices": 1}
            config = {**config, "trainer": trainer}
        settings = Settings.of(config)
        if settings.trainer.num_nodes > 1:
            raise ConfigError("trainer.num_nodes must be 1 in a sweep: each run is on one machine")
        key = identity({**config, "seed": 0})
        if key not in self._built:
            self._built[key] = self._build(config, settings)
        return self._built[key]

    def _build(self, config: Mapping[str, Any], settings: Settings) -> tuple[int, int]:
        module = build_module(config, settings)
        if config["init_from"] is not None:
            begin_from(module, config["init_from"])
        build_metrics(config, settings, torch.device("cpu"))
        data = settings.data
        key = json.dumps([data.train, data.val, asdict(data.preparation)])
        if key not in self._data:
            training, _ = training_and_validation(data.train, data.val)
            if isinstance(training, ImageIndex):
                check_some(training, data.preparation)
            self._data.add(key)
        flops = sum(count_flops(module.tokenizer, data.image_size))
        return sum(count_parameters(module.tokenizer).values()), flops


def _values_of(words: Sequence[str], axes: Sequence[str]) -> dict[str, object]:
    parsed = {word.partition("=")[0]: parse(word) for word in words}
    return {_key_of(axis): parsed[axis].value() for axis in axes}


def _distinct(values: Iterable[object]) -> list[object]:
    """Return values without repetition, as they come; lists among them cannot be hashed."""
    return list({json.dumps(value, default=str): value for value in values}.values())


def _listed(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
