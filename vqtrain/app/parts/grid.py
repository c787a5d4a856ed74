"""The runs of a sweep from its command line, each composed and checked."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import CommandLine, compose, group_choices, is_path_key, parse
from vqtrain.app.parts.data import check_some
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.resume import FREE, differences
from vqtrain.app.parts.settings import Settings
from vqtrain.data.sources.find import training_and_validation
from vqtrain.data.sources.index import ImageIndex
from vqtrain.errors import ConfigError, require
from vqtrain.evaluation.cost import count_flops, count_parameters
from vqtrain.sweeps.grid import MAX_JOBS, OWN_KEYS, Config, Grid, Words, expand, identity
from vqtrain.sweeps.job import SweepJob
from vqtrain.training.results import CONFIG
from vqtrain.training.run_directory import read_config


def read_grid(command_line: CommandLine, sweep_dir: Path | None, *, is_here: bool) -> Grid:
    """Expand the keys with several values, and compose and check every run.

    Args:
        command_line: What the user typed, without the keys of the sweep.
        sweep_dir: Where the runs are; None is a folder named by ``name``, that of the first run.
        is_here: Whether they run on this machine, whose devices are then checked.

    Raises:
        VqtrainError: If any run is not possible.
    """
    groups = group_choices(command_line.config_dir)
    choices = [choices_of(word, groups) for word in command_line.overrides]
    axes = [words[0].partition("=")[0] for words in choices if len(words) > 1]
    _check_keys(command_line, axes)

    def values_of(words: Words) -> dict[str, object]:
        parsed = {word.partition("=")[0]: parse(word) for word in words}
        return {_key_of(axis): parsed[axis].value() for axis in axes}

    def compose_run(words: Words) -> tuple[Config, Words]:
        typed = replace(command_line, overrides=words)
        return compose("train", typed), command_words(typed)

    return expand(
        choices,
        values_of=values_of,
        compose=compose_run,
        check=Checks(is_here=is_here).check,
        groups=list(groups),
        sweep_dir=sweep_dir,
    )


def _check_keys(command_line: CommandLine, axes: Sequence[str]) -> None:
    """Refuse keys that the sweep sets, and several values of a key that can have only one."""
    typed = [*command_line.paths, *map(_key_of, command_line.overrides)]
    for key in OWN_KEYS:
        if key in typed:
            raise ConfigError(f"{key} is set by the sweep: leave it out, and give sweep_dir")
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


def difference(job: SweepJob) -> str:
    """Say in which settings a run differs from the one in its folder; empty if in none."""
    if not (job.run_dir / CONFIG).exists():
        return ""
    machine = ("trainer.devices", "trainer.num_nodes", "trainer.compile", "trainer.max_steps")
    known = read_config(job.run_dir)
    refused, warned = differences(known, job.config, free=FREE, warned=machine)
    if "trainer.max_steps" in warned:
        refused = refused or [f"trainer.max_steps is {job.max_steps} now"]
    return ", ".join(refused)


@final
class Checks:
    """Builds what a run needs, once for all that need the same, to see whether it is possible.

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
        begin(module, config)
        find_metrics(config, settings, torch.device("cpu"))
        data = settings.data
        key = json.dumps([data.train, data.val, asdict(data.transform)])
        if key not in self._data:
            training, _ = training_and_validation(data.train, data.val)
            if isinstance(training, ImageIndex):
                check_some(training, data.transform)
            self._data.add(key)
        flops = sum(count_flops(module.tokenizer, data.image_size))
        return sum(count_parameters(module.tokenizer).values()), flops
