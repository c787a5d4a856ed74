"""The runs of a sweep from its command line, each composed and checked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import torch

from vqtrain.app.parts.axes import axes_of, key_of, read_choices
from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import CommandLine, compose, group_choices, parse
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.resume import FREE, differences
from vqtrain.app.parts.settings import Settings
from vqtrain.data.loading.batches import check_some
from vqtrain.data.sources.find import training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError
from vqtrain.evaluation.cost import count_flops, count_parameters
from vqtrain.sweeps.grid import Checked, Config, Grid, Words, expand, identity
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
    choices = read_choices(command_line, groups)
    axes = axes_of(choices)

    def values_of(words: Words) -> dict[str, object]:
        parsed = {word.partition("=")[0]: parse(word) for word in words}
        return {key_of(axis): parsed[axis].value() for axis in axes}

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
        self._built: dict[str, Checked] = {}
        self._data: set[str] = set()

    def check(self, config: Mapping[str, Any]) -> Checked:
        """Check a run, and return what is known of its tokenizer.

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

    def _build(self, config: Mapping[str, Any], settings: Settings) -> Checked:
        module = build_module(config, settings)
        begin(module, config)
        find_metrics(config, settings, torch.device("cpu"))
        data = settings.data
        key = json.dumps([data.media.word, data.train, data.val, asdict(data.transform)])
        if key not in self._data:
            training, _ = training_and_validation(data.train, data.val, data.media)
            if isinstance(training, SampleIndex):
                check_some(training, data.transform, where=" of data.train")
            self._data.add(key)
        return Checked(
            parameters=sum(count_parameters(module.tokenizer).values()),
            flops=sum(count_flops(module.tokenizer, data.sample_size)),
            has_ids=module.tokenizer.codebook.num_codebooks > 0,
        )
