"""From the command line to plain data, through Hydra's compose API."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqtrain.app.parts.choices import metric_entries
from vqtrain.app.parts.choose import INNER_CODEBOOK, choose_class, choose_part, open_key
from vqtrain.app.parts.mistakes import (
    check_choice,
    check_key,
    several_values,
    unknown_key,
    unreadable,
)
from vqtrain.build import configs_folder, unknown
from vqtrain.errors import ConfigError, require
from vqtrain.ops.paths import expand
from vqtrain.ranges import check, one_of
from vqtrain.tokenizer.parts import PARTS

# Folders of configs that are no groups of ``vqtrain train``.
OTHER_FOLDERS = ("command", "format", "launcher", "metric")

# The choice of a part that is that of init_from.
INHERITED = "init_from"

# Taken as typed: Hydra's grammar refuses or rewrites what paths hold ({000..099}, ~, =, spaces).
PATH_KEYS = (
    *("data.train", "data.val", "images", "videos", "sounds", "tokenizer"),
    *("path", "run", "other", "out"),
    *("run_dir", "resume", "init_from", "sweep_dir"),
)
# Those of one command, where keys with these names are something else in others.
COMMAND_PATH_KEYS = {
    "probe": ("val", "tokens"),
    "sample": ("probe",),
    "leaderboard": ("tokenizers",),
    "export": ("runtime",),
    "demo": ("runtime",),
}

# A name without lists, quotes and interpolations is text, also 20240501, 1e5 and true.
PLAIN = re.compile(r"[^'\"\\$\[{,]+")
# Whole numbers with an exponent below 20, which Hydra reads as floats: 1e6, 1.5e3.
EXPONENT = re.compile(r"\d+(?:\.\d+)?[eE]\+?[01]?\d")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What the user typed after the command.

    Attributes:
        paths: Values of path keys, as typed.
        overrides: All other ``key=value`` words.
        config_dir: The user's own folder of configs, or None.
        show_help: Whether ``--help`` was given.
        print_config: Whether ``--print-config`` was given.
    """

    paths: Mapping[str, str]
    overrides: Sequence[str]
    config_dir: Path | None
    show_help: bool
    print_config: bool


def read_command_line(
    words: Sequence[str], path_keys: Sequence[str] = (), *, example: str | None = None
) -> CommandLine:
    """Sort the words of a command line.

    Args:
        words: What was typed after the command.
        path_keys: Those of its keys that are paths, besides ``PATH_KEYS``.
        example: The key of which a word without one is likely the value, for messages.

    Raises:
        ConfigError: If a word is neither an option nor ``key=value``.
    """
    paths: dict[str, str] = {}
    overrides: list[str] = []
    config_dir: Path | None = None
    options = {"--help": False, "--print-config": False}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if word in ("-h", *options):
            options["--help" if word == "-h" else word] = True
        elif key == "--config-dir":
            config_dir = read_config_dir(value if equals else (rest.pop(0) if rest else ""))
        elif word.startswith("-"):
            raise ConfigError(unknown("option", word, [*options, "--config-dir"]))
        elif equals and (is_path_key(key) or key in path_keys):
            # The last word of a key counts, also where one of them is a list and another is not.
            paths.pop(key, None)
            overrides = [other for other in overrides if not other.startswith(f"{key}=")]
            if value.startswith("["):
                overrides.append(word)
            else:
                paths[key] = value
        elif (equals and key.strip()) or word.startswith("~"):
            is_plain = key == "name" and PLAIN.fullmatch(value)
            overrides.append(f"{key}='{value}'" if is_plain else with_whole_numbers(word))
        else:
            raise unreadable(words, len(words) - len(rest) - 1, example)
    return CommandLine(
        paths=paths,
        overrides=overrides,
        config_dir=config_dir,
        show_help=options["--help"],
        print_config=options["--print-config"],
    )


def with_whole_numbers(word: str) -> str:
    """Write out the whole numbers among the values of a word, so that they are no floats.

    Example:
        >>> with_whole_numbers("trainer.max_steps=1.5e3"), with_whole_numbers("optim.lr=1e-4,15e-1")
        ('trainer.max_steps=1500', 'optim.lr=1e-4,15e-1')
    """
    key, equals, typed = word.partition("=")
    values = typed.split(",")
    for place, value in enumerate(values):
        number = Decimal(value) if EXPONENT.fullmatch(value) else None
        if number is not None and number == number.to_integral_value():
            values[place] = str(int(number))
    return f"{key}{equals}{','.join(values)}"


def is_path_key(key: str) -> bool:
    """Say whether the value of a key is a path, or several."""
    return key in PATH_KEYS or key.startswith("weights.")


def read_config_dir(value: str) -> Path:
    """Check the folder that ``--config-dir`` names."""
    folder = expand(value)
    if not value or not folder.is_dir():
        raise ConfigError(f"--config-dir must be a folder of yaml files, got {value!r}")
    return folder.resolve()


def group_choices(config_dir: Path | None) -> dict[str, list[str]]:
    """List the config groups and the choices of each, ours and the user's."""
    choices: dict[str, list[str]] = {}
    for folder in filter(None, (configs_folder(), config_dir)):
        for file in sorted(folder.rglob("*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            if group not in (".", *OTHER_FOLDERS):
                choices.setdefault(group, []).append(file.stem)
    return {group: sorted(set(names)) for group, names in sorted(choices.items())}


def compose(name: str, command_line: CommandLine, *, is_whole: bool = True) -> dict[str, Any]:
    """Compose the configuration of a command.

    Args:
        name: The primary config, such as ``train``.
        command_line: What the user typed.
        is_whole: Whether every key must have a value; not where only some words were taken over.

    Returns:
        Plain data, resolved; path keys hold what was typed.

    Raises:
        ConfigError: If a key, a choice or a value is wrong.
    """
    choices = group_choices(command_line.config_dir)
    inherited = inherited_groups(name, command_line) if is_whole else {}
    overrides = [
        open_key(choose_part(choose_class(word, choices), choices))
        for word in [*store_groups(inherited, choices), *command_line.overrides]
    ]
    parsed = [parse(word) for word in overrides]
    for override in parsed:
        check_choice(override, choices)
    try:
        config = call_hydra(name, overrides, command_line.config_dir)
        plain = to_plain(config, command_line.paths)
    except yaml.YAMLError as error:
        raise ConfigError(f"a config is not valid YAML: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        if any(override.package == INNER_CODEBOOK for override in parsed):
            raise ConfigError(
                f"{INNER_CODEBOOK} cannot be chosen: this codebook is not made of another one"
            ) from error
        groups = [o.input_line for o in parsed if o.key_or_group in choices and o.input_line]
        with suppress(HydraException, OmegaConfBaseException):
            known = to_plain(call_hydra(name, groups, command_line.config_dir), {})
            for override in parsed:
                check_key(override, [*flatten(known), *choices])
        for override in parsed:
            if override.package and not override.is_add() and "not override" in str(error):
                raise ConfigError(
                    f"there is no {override.package} yet: write +{override.input_line}"
                ) from error
        raise ConfigError(str(error).splitlines()[0]) from error
    for key in sorted(OmegaConf.missing_keys(config)) if is_whole else []:
        raise ConfigError(f"{key} has no value yet: set {key}=...")
    inherit(plain, inherited, [override.key_or_group for override in parsed])
    if is_whole:
        check_experiment(name, plain, parsed, command_line.config_dir)
    plain["metrics"]["names"] = metric_entries(plain["metrics"]["names"], command_line.config_dir)
    return plain


def inherited_groups(name: str, command_line: CommandLine) -> dict[str, dict[str, object]]:
    """Return what a run inherits from the tokenizer in ``init_from``, by group.

    A part that the command line chooses is not inherited.

    Raises:
        CheckpointError: If there is no such tokenizer.
    """
    typed = [word.partition("=")[0] for word in command_line.overrides]
    if "init_from" not in command_line.paths and "experiment" not in typed:
        return {}
    choices = group_choices(command_line.config_dir)
    words = [
        word
        for word in command_line.overrides
        if is_group_choice(word, choices) or word.startswith(("allow=", "init_parts="))
    ]
    known = compose(name, replace(command_line, overrides=words), is_whole=False)
    if known.get("init_from") is None:
        return {}
    from vqtrain.app.parts.inherit import architecture  # imports torch

    check("init_parts", known["init_parts"], Sequence[Annotated[str, one_of(*PARTS)]] | None)
    groups = architecture(known["init_from"], known["allow"], known["init_parts"] or PARTS)
    return {group: node for group, node in groups.items() if group not in typed or group == "data"}


def store_groups(
    inherited: Mapping[str, Mapping[str, object]], choices: dict[str, list[str]]
) -> list[str]:
    """Make choices of inherited parts, whose keys can then be set, and return their words."""
    words = []
    for group, node in inherited.items():
        if group != "data":
            ConfigStore.instance().store(group=group, name=INHERITED, node=dict(node))
            choices[group].append(INHERITED)
            words.append(f"{group}={INHERITED}")
    return words


def inherit(
    plain: dict[str, Any], inherited: Mapping[str, Mapping[str, object]], typed: Sequence[str]
) -> None:
    """Set what is inherited, also where an experiment says otherwise, but no key that was typed."""
    composed = flatten(plain)
    for group, node in inherited.items():
        if group == "data":  # clips and sounds have no range
            plain[group] |= {key: node[key] for key in node if key in plain[group]}
        else:
            plain[group] = dict(node)
    for key in composed:
        if key in typed:
            put(plain, key, composed[key])


def parse(word: str) -> Override:
    """Read ``key=value`` by Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(
            f"cannot read {word!r}: quote the value, as in {word.partition('=')[0]}='\"...\"'"
        ) from error
    if override.is_sweep_override():
        raise several_values(word)
    return override


def check_experiment(
    name: str, plain: Mapping[str, Any], parsed: Sequence[Override], config_dir: Path | None
) -> None:
    """Refuse what an experiment sets of its own part, where the command line chose another one.

    Args:
        name: The primary config.
        plain: The composed configuration.
        parsed: What it was composed of.
        config_dir: The user's own folder of configs, or None.

    Raises:
        ConfigError: If there are such keys; the message says how to leave them out.
    """
    typed = {override.key_or_group: override.value() for override in parsed}
    for chosen in parsed if "experiment" in typed else []:
        group, word = chosen.key_or_group, chosen.value()
        where = (chosen.package or group).replace("/", ".")
        node = node_of(plain, where)
        if chosen.is_delete() or node.get("kind") in (None, "none"):
            continue
        add = "+" if chosen.is_add() or chosen.package else ""
        there = f"@{chosen.package}" if chosen.package else ""
        own = node_of(call_hydra(name, [f"{add}{group}{there}={word}"], config_dir), where)
        keys = sorted(f"{where}.{key}" for key in node.keys() - own.keys())
        foreign = [key for key in keys if key not in typed]
        if foreign:
            raise ConfigError(
                f"experiment={typed['experiment']} sets {', '.join(foreign)}, which "
                f"{where}={word} does not have: leave out with "
                f"{' '.join(f'~{key}' for key in foreign)}"
            )


def node_of(config: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """Return a group of the configuration; empty if there is none, or if it is a value."""
    node: object = config
    for word in group.replace("/", ".").split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def call_hydra(name: str, overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    """Compose without touching ``sys.argv``, the working directory or the logging."""
    search = []
    if config_dir is not None:
        url = QuotedString(text=f"file://{config_dir}", quote=Quote.single)
        search.append(f"hydra.searchpath=[{url.with_quotes()}]")
    with initialize_config_dir(config_dir=str(configs_folder()), version_base="1.3"):
        return hydra_compose(config_name=name, overrides=[*search, *overrides])


def to_plain(config: DictConfig, paths: Mapping[str, str]) -> dict[str, Any]:
    """Resolve a composed configuration, but for the values of path keys."""
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]  # a mapping
    flat = flatten(raw)
    literal = {key: paths.get(key, flat[key]) for key in flat if is_path_key(key)}
    for key in paths:
        if key not in literal:
            raise ConfigError(unknown_key(key, flat))
    for key in literal:
        OmegaConf.update(config, key, None)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]  # a mapping
    for key, value in literal.items():
        put(plain, key, value)
    return plain


def put(config: dict[str, Any], key: str, value: object) -> None:
    """Set the value of a dotted key."""
    *groups, last = key.split(".")
    for group in groups:
        config = config.setdefault(group, {})
        require(isinstance(config, Mapping), f"{key}: {group} is {config!r}, and has no keys")
    config[last] = value


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """List all values by their dotted key."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_group_choice(word: str, groups: Collection[str]) -> bool:
    """Say whether a word such as ``codebook=fsq`` chooses from one of the groups."""
    key = re.sub(r"^[+~]*", "", word.partition("=")[0]).partition("@")[0]
    return key in groups


def lookup_config(command_line: CommandLine) -> dict[str, Any]:
    """Compose the keys that locate the run; other keys may fit its configuration alone."""
    choices = group_choices(command_line.config_dir)
    words = [
        word
        for word in command_line.overrides
        if is_group_choice(word, choices) or parse(word).key_or_group == "name"
    ]
    return compose("train", replace(command_line, overrides=words), is_whole=False)
