"""The keys of a sweep that have several values."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from vqtrain.app.parts.compose import CommandLine, compose, group_choices, is_path_key, parse
from vqtrain.build import unknown
from vqtrain.errors import ConfigError, require
from vqtrain.sweeps.job import MAX_JOBS, OWN_KEYS


def compose_first(command_line: CommandLine) -> None:
    """Compose the first run of a sweep, so that a wrong word is answered before torch is imported.

    Raises:
        ConfigError: If it cannot be composed.
    """
    groups = group_choices(command_line.config_dir)
    choices = read_choices(command_line, groups)
    for words in choices:
        for key, _, value in (word.partition("=") for word in words[1:]):
            if key in groups and value not in groups[key] and ":" not in value:
                raise ConfigError(f"{key}={value}: {unknown(key, value, groups[key])}")
    first = [words[0] for words in choices]
    try:
        compose("train", replace(command_line, overrides=first))
    except ConfigError as error:
        shown = " ".join(words[0] for words in choices if len(words) > 1)
        error.args = (f"{shown}: {error}",)
        raise


def read_choices(command_line: CommandLine, groups: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return for each word of a sweep the words that it stands for.

    Raises:
        ConfigError: If one cannot be read, or is of a key that cannot have several values.
    """
    choices = [choices_of(word, groups) for word in command_line.overrides]
    check_keys(command_line, axes_of(choices))
    return choices


def axes_of(choices: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys with several values, as typed."""
    return [words[0].partition("=")[0] for words in choices if len(words) > 1]


def check_keys(command_line: CommandLine, axes: Sequence[str]) -> None:
    """Refuse keys that the sweep sets, and several values of a key that can have only one."""
    typed = [*command_line.paths, *map(key_of, command_line.overrides)]
    for key in OWN_KEYS:
        if key in typed:
            raise ConfigError(f"{key} is set by the sweep: leave it out, and give sweep_dir")
    if not axes:
        raise ConfigError("name a key with several values, such as codebook.size=1024,4096")
    for key in map(key_of, axes):
        require(key != "name", "name cannot have several values: it names the sweep")
        require(not is_path_key(key), f"{key} cannot have several values: it is a path")


def key_of(word: str) -> str:
    """Return the key of a word."""
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
