"""From the words of a command line to a command's arguments, and to its help."""

import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import (
    CommandLine,
    group_choices,
    is_path_key,
    parse,
    put,
    read_command_line,
)
from vqtrain.app.parts.describe import fill
from vqtrain.app.parts.pages import (
    LISTING,
    REQUIRED,
    USAGE,
    Page,
    annotations_of,
    describe,
    kinds_for,
    page_of,
    page_of_kind,
)
from vqtrain.build import bind, resolve, unknown
from vqtrain.errors import ConfigError
from vqtrain.ranges import check, nearest, widened

# Keys this much alike are taken for one of them, misspelt.
ALIKE = 0.8
# Of a command, the key whose value may be typed alone.
ALONE = {"leaderboard": "tokenizers"}
# Several plain values, as in key=a,b, are a list.
LISTED = re.compile(r"^([\w.]+=)([\w.-]+(?:,[\w.-]+)+)$")
OPTIONS = "options:\n  --help   show this"
COMPOSED_OPTIONS = """options:
  --config-dir DIR   a folder with configs of your own, laid out as vqtrain's configs/
  --print-config     show the configuration, or the command lines of a sweep, and stop
  --help             show this"""


def main(word: str, words: Sequence[str]) -> int:
    """Run a command, or show its help.

    Args:
        word: The kind word of the command, or ``package.module:Class``.
        words: The words after it.

    Raises:
        VqtrainError: If a word is wrong, or the command fails.
    """
    command: Command | None = resolve("command", word)() if ":" in word else None
    page = page_of(word, command)
    words = with_key(words, ALONE.get(word))
    own, command_line = split_words(page, words)
    values = read_values(page, own)
    if command_line.show_help:
        sections = [page.about, describe(page.defaults, page.meanings), page.notes]
        sections += [COMPOSED_OPTIONS if page.is_composed else OPTIONS, page.examples]
        # Keys of a sweep may have several values, with which nothing can be composed.
        alone = dataclasses.replace(command_line, paths={}, overrides=[])
        text = "\n\n".join(filter(None, sections))
        sys.stdout.write(fill(text, command_line if word == "train" else alone) + "\n")
        return 0
    check_required(values, page)
    # What is wrong with the words has been said: importing a command takes seconds.
    command = command or typing.cast(Command, resolve("command", word)())
    context = {"words": list(words), "command_line": command_line}
    return command.run(**arguments_of(command.run, values, context))


def with_key(words: Sequence[str], key: str | None) -> Sequence[str]:
    """Put a key before the first word that has none.

    Example:
        >>> with_key(["--help", "list.yaml", "out=a"], "tokenizers")
        ['--help', 'tokenizers=list.yaml', 'out=a']
    """
    alone = next((word for word in words if "=" not in word and word[:1] not in "-~"), None)
    if key is None or alone is None:
        return words
    place = words.index(alone)
    return [*words[:place], f"{key}={alone}", *words[place + 1 :]]


def check_required(values: Mapping[str, Any], page: Page) -> None:
    """Refuse a command line without a key that must be given."""
    for key, default in page.defaults.items():
        if default == REQUIRED and values[key] in (REQUIRED, ""):
            raise ConfigError(f"name the {key}: {page.about.splitlines()[0].removeprefix(USAGE)}")


def typed_values(command_line: CommandLine) -> dict[str, Any]:
    """Return the values of all keys that were typed."""
    overrides = [parse(LISTED.sub(r"\1[\2]", word)) for word in command_line.overrides]
    return {**{each.key_or_group: each.value() for each in overrides}, **command_line.paths}


def split_words(page: Page, words: Sequence[str]) -> tuple[list[str], CommandLine]:
    """Split a command line into the words of the command and those of ``vqtrain train``.

    Raises:
        ConfigError: If a key of the command is misspelt, or an option is not for it.
    """
    if page.is_composed:
        own = [word for word in words if is_key(word.partition("=")[0], page.defaults)]
        rest = [word for word in words if word not in own]
        command_line = read_command_line(rest, example=first_path(page))
        for word in command_line.overrides:
            key = word.partition("=")[0]
            is_group = key in group_choices(command_line.config_dir)
            if "." not in key and not is_group and nearest(key, page.defaults, alike=ALIKE):
                raise ConfigError(unknown("key", key, page.defaults))
        return own, command_line
    command_line = read_command_line(words, page.path_keys, example=first_path(page))
    if command_line.config_dir is not None or command_line.print_config:
        raise ConfigError("this command has no configuration: its only option is --help")
    return list(words), command_line


def first_path(page: Page) -> str | None:
    """Return the first key of a command if a word alone is likely its value: a path."""
    key = next(iter(page.defaults), "")
    is_path = is_path_key(key) or key in page.path_keys
    # With keys of a run, a word alone may be one of these.
    return key if is_path and (not page.is_composed or page.defaults[key] == REQUIRED) else None


def read_values(page: Page, words: Sequence[str]) -> dict[str, Any]:
    """Return the value of every key; those of dotted keys in mappings.

    Raises:
        ConfigError: If a key is unknown, or a value cannot be read.
    """
    typed = typed_values(read_command_line(words, page.path_keys))
    check_keys(typed, page)
    values: dict[str, Any] = {}
    for key, value in {**page.defaults, **typed}.items():
        put(values, key, value)
    return values


def check_keys(typed: Mapping[str, Any], page: Page) -> None:
    """Refuse keys that are neither a command's nor those of the kind that is chosen.

    Raises:
        ConfigError: If there is one, or no such kind.
    """
    where, more = "", list[str]()
    for choosing, name in LISTING.findall(page.notes):
        word = str(typed.get(choosing, page.defaults.get(choosing, REQUIRED)))
        if choosing and word != REQUIRED and ":" not in word:
            pages = kinds_for(name)
            if word not in pages:
                raise ConfigError(unknown(choosing, word, pages))
            where, more = f"{choosing}={word}: ", [*pages[word].defaults]
        elif choosing:
            return  # it is said that none was named, or a third party's class says what it takes
    for key in typed:
        if not page.takes_any and key not in more and not is_key(key, page.defaults):
            raise ConfigError(f"{where}{unknown('key', key, [*page.defaults, *more])}")


def is_key(key: str, defaults: Mapping[str, Any]) -> bool:
    """Say whether a command has a key; one that is a mapping has all keys below it."""
    return key in defaults or defaults.get(key.partition(".")[0]) == {}


def arguments_of(
    run: Callable[..., object], values: Mapping[str, Any], context: Mapping[str, object]
) -> dict[str, object]:
    """Turn the values of keys into the arguments of a command.

    Raises:
        ConfigError: If one is of a wrong type or out of range.
    """
    rest, arguments = dict(values), {}
    for name, hint in annotations_of(run).items():
        if name in context:
            arguments[name] = context[name]
        elif dataclasses.is_dataclass(hint):
            fields = {field.name: rest.pop(field.name) for field in dataclasses.fields(hint)}
            arguments[name] = bind(typing.cast(type, hint), fields, where="")
        else:
            check(name, rest[name], hint)
            arguments[name] = widened(rest.pop(name), hint)
    return {**arguments, **rest}


def build_kind(group: str, word: str, typed: Mapping[str, object], *, key: str) -> object:
    """Build a kind of a group from its defaults and what was typed.

    Args:
        group: A key of ``GROUPS``.
        word: A kind of ours, which ``check_keys`` has found, or ``package.module:Class``.
        typed: Values of the kind's own keys.
        key: The key that names the kind.

    Raises:
        ConfigError: If there is no such class, or a key or a value is wrong.
    """
    factory = resolve(group, word)
    defaults = page_of_kind(group, word).defaults
    given = {key: value for key, value in defaults.items() if value != REQUIRED}
    return bind(factory, {**given, **typed}, where=f"{key}={word}")
