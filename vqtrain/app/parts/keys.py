"""From the words of a command line to a command's arguments, and to its help."""

import dataclasses
import importlib
import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import CommandLine, flatten, parse, read_command_line
from vqtrain.build import bind, config_of, kinds, package_of, resolve, unknown
from vqtrain.errors import ConfigError
from vqtrain.ranges import check, choices_of, nearest, widened

# The default of a key that must be given.
REQUIRED = "???"
# Arguments that are no keys.
CONTEXT = ("words", "command_line")
USAGE, EXAMPLES = "usage: ", "examples:"
# In the source of a command that takes other keys than those of its yaml.
OPEN = re.compile(r"is_composed = True|\*\*options")
# Keys this much alike are taken for one of them, misspelt.
ALIKE = 0.8
# Several plain values, as in key=a,b, are a list.
LISTED = re.compile(r"^([\w.]+=)([\w.-]+(?:,[\w.-]+)+)$")
OPTIONS = "options:\n  --help   show this"
COMPOSED_OPTIONS = """options:
  --config-dir DIR   a folder with configs of your own, laid out as vqtrain's configs/
  --print-config     show the configuration, or the command lines of a sweep, and stop
  --help             show this"""


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """What a yaml says of the command or the launcher that it configures.

    Attributes:
        summary: In a few words.
        about: What comes before the keys.
        defaults: The value of each key if none is given.
        meanings: Of each key.
        notes: What comes after the keys.
        examples: Command lines.
    """

    summary: str
    about: str = ""
    defaults: Mapping[str, Any]
    meanings: Mapping[str, str]
    notes: str = ""
    examples: str = ""


def main(word: str, words: Sequence[str]) -> int:
    """Run a command, or show its help.

    Args:
        word: The kind word of the command, or ``package.module:Class``.
        words: The words after it.

    Raises:
        VqtrainError: If a word is wrong, or the command fails.
    """
    if is_closed(word):
        # What is wrong is said before the command is imported, which takes seconds.
        page = read_page(config_of("command", word).read_text(encoding="utf-8"))
        check_words(words, page)
    factory = resolve("command", word)
    command: Command = factory()
    page = page_of(word, command)
    own, command_line = split_words(command, page.defaults, words)
    values = read_values(command, page.defaults, own)
    if command_line.show_help:
        sections = [page.about, describe(page.defaults, page.meanings, hints_of(command.run))]
        sections += [command.details(command_line), page.notes]
        sections += [COMPOSED_OPTIONS if command.is_composed else OPTIONS, page.examples]
        sys.stdout.write("\n\n".join(filter(None, sections)) + "\n")
        return 0
    check_required(values, page)
    context = {"words": list(words), "command_line": command_line}
    return command.run(**arguments_of(command.run, values, context))


def is_closed(word: str) -> bool:
    """Say whether a command of ours takes the keys of its yaml alone, by its source."""
    package = importlib.import_module(package_of("command"))
    source = Path(package.__path__[0], f"{word}.py")
    return ":" not in word and not OPEN.search(source.read_text(encoding="utf-8"))


def check_words(words: Sequence[str], page: Page) -> None:
    """Refuse words that a command without other keys does not take.

    Raises:
        ConfigError: If one is no key of it, or one that must be given is missing.
    """
    command_line = read_closed(words)
    values = {**page.defaults, **typed_values(command_line)}
    for key in values:
        if not is_key(key, page.defaults):
            raise ConfigError(unknown("key", key, page.defaults))
    if not command_line.show_help:
        check_required(values, page)


def check_required(values: Mapping[str, Any], page: Page) -> None:
    """Refuse a command line without a key that must be given."""
    for key, default in page.defaults.items():
        if default == REQUIRED and values[key] in (REQUIRED, ""):
            raise ConfigError(f"name the {key}: {page.about.splitlines()[0].removeprefix(USAGE)}")


def typed_values(command_line: CommandLine) -> dict[str, Any]:
    """Return the values of all keys that were typed."""
    overrides = [parse(LISTED.sub(r"\1[\2]", word)) for word in command_line.overrides]
    return {**{each.key_or_group: each.value() for each in overrides}, **command_line.paths}


def read_closed(words: Sequence[str]) -> CommandLine:
    """Read the command line of a command that has no configuration."""
    command_line = read_command_line(words)
    if command_line.config_dir is not None or command_line.print_config:
        raise ConfigError("this command has no configuration: its only option is --help")
    return command_line


def split_words(
    command: Command, defaults: Mapping[str, Any], words: Sequence[str]
) -> tuple[list[str], CommandLine]:
    """Split a command line into the words of the command and those of ``vqtrain train``.

    Raises:
        ConfigError: If a key of the command is misspelt, or an option is not for it.
    """
    if command.is_composed:
        own = [word for word in words if is_key(word.partition("=")[0], defaults)]
        command_line = read_command_line([word for word in words if word not in own])
        for word in command_line.overrides:
            key = word.partition("=")[0]
            if "." not in key and nearest(key, defaults, alike=ALIKE):
                raise ConfigError(unknown("key", key, defaults))
        return own, command_line
    return list(words), read_closed(words)


def read_values(
    command: Command, defaults: Mapping[str, Any], words: Sequence[str]
) -> dict[str, Any]:
    """Return the value of every key; those of dotted keys in mappings.

    Raises:
        ConfigError: If a key is unknown, or a value cannot be read.
    """
    typed = typed_values(read_command_line(words))
    parameters = inspect.signature(command.run).parameters.values()
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    values: dict[str, Any] = {}
    for key, value in {**defaults, **typed}.items():
        if not takes_any and not is_key(key, defaults):
            raise ConfigError(unknown("key", key, defaults))
        group, _, name = key.rpartition(".")
        if group:
            values[group] = {**values.get(group, {}), name: value}
        else:
            values[key] = value
    return values


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


def annotations_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the annotations of a function's arguments, but for that of ``**options``."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {
        each.name: hints[each.name]
        for each in parameters
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    }


def hints_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the annotation of each key of a command or a kind."""
    hints: dict[str, object] = {}
    for name, hint in annotations_of(function).items():
        is_group = dataclasses.is_dataclass(hint) and name not in CONTEXT
        hints |= hints_of(typing.cast(type, hint)) if is_group else {name: hint}
    return hints


def page_of(word: str, command: Command) -> Page:
    """Return what is said of a command: in its yaml, or of a third party's in its docstrings."""
    if ":" not in word:
        return read_page(config_of("command", word).read_text(encoding="utf-8"))
    text = inspect.getdoc(command) or ""
    defaults, meanings = keys_in_signature(command.run)
    return Page(
        summary=text.partition("\n")[0],
        about=f"{USAGE}vqtrain {word} [key=value ...]\n\n{text}".strip(),
        defaults=defaults,
        meanings=meanings,
    )


def read_page(text: str) -> Page:
    """Read a yaml whose comments are its help."""
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    first, end = (keys[0], keys[-1] + 1) if keys else (len(lines), len(lines))
    summary, *head = [line[2:] for line in lines[:first]] or [""]
    about, _, head_examples = "\n".join(head).partition(EXAMPLES)
    notes, _, examples = "\n".join(line[2:] for line in lines[end:]).partition(EXAMPLES)
    examples = examples or head_examples
    meanings: dict[str, str] = {}
    key = group = ""
    for line in lines[first:end]:
        found = re.match(r"( *)(\w+):.*?(?: +# (.*))?$", line)
        if found is None:
            if key and line.lstrip().startswith("#"):
                meanings[key] += f" {line.strip(' #')}"
            continue
        key = f"{group}.{found[2]}" if found[1] else found[2]
        group = group if found[1] else found[2]
        meanings[key] = found[3] or ""
    return Page(
        summary=summary,
        about=about.strip(),
        defaults=flatten(yaml.safe_load(text) or {}),
        meanings=meanings,
        notes=notes.strip(),
        examples=f"{EXAMPLES}{examples.rstrip()}" if examples else "",
    )


def keys_in_signature(function: Callable[..., object]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the defaults of a function's arguments, and what its docstring says of each."""
    text = inspect.getdoc(function) or ""
    defaults: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    parameters = inspect.signature(function).parameters
    for name, hint in annotations_of(function).items():
        if name in CONTEXT:
            continue
        if dataclasses.is_dataclass(hint):
            inner, said = keys_in_signature(typing.cast(type, hint))
            defaults, meanings = {**defaults, **inner}, {**meanings, **said}
            continue
        default = parameters[name].default
        defaults[name] = REQUIRED if default is inspect.Parameter.empty else default
        found = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
        meanings[name] = " ".join(found[1].split()) if found else ""
    return defaults, meanings


def describe(
    defaults: Mapping[str, Any], meanings: Mapping[str, str], hints: Mapping[str, object]
) -> str:
    """List keys with their meaning, the words that they take, and their default."""
    width = max(map(len, defaults), default=0) + 1
    lines = ["keys:"] if defaults else []
    for key, default in defaults.items():
        meaning = ": ".join(filter(None, [meanings[key], ", ".join(choices_of(hints.get(key)))]))
        shown = default if isinstance(default, str) else json.dumps(default)
        end = "" if default == REQUIRED else f" [{shown}]"
        lines.append(f"  {key:<{width}} {meaning}{end}")
    return "\n".join(lines)


def describe_launchers() -> str:
    """List the launchers, each with its options."""
    launchers = describe_kinds("launcher", kinds("launcher"))
    return f"launchers, and their launcher_options:\n{launchers}"


def describe_kinds(group: str, words: Sequence[str]) -> str:
    """List kinds of a group, each with its summary, and with its own keys below it."""
    lines = []
    width = max(map(len, words)) + 1
    for word in words:
        page = page_of_kind(group, word)
        lines.append(f"  {word:<{width}} {page.summary}")
        described = describe(page.defaults, page.meanings, hints_of(resolve(group, word)))
        lines += [f"  {line}" for line in described.splitlines()[1:]]
    return "\n".join(lines)


def page_of_kind(group: str, word: str) -> Page:
    """Return what is said of a kind: in its yaml, or of a third party's in its docstrings."""
    factory = resolve(group, word)
    if ":" in word:
        defaults, meanings = keys_in_signature(factory)
        summary = (inspect.getdoc(factory) or "").partition("\n")[0]
        return Page(summary=summary, defaults=defaults, meanings=meanings)
    page = read_page(config_of(group, word).read_text(encoding="utf-8"))
    defaults = {key: value for key, value in page.defaults.items() if key != "kind"}
    return dataclasses.replace(page, defaults=defaults)


def build_kind(
    group: str, word: str, typed: Mapping[str, object], *, key: str, words: Sequence[str]
) -> object:
    """Build a kind of a group from its defaults and what was typed.

    Args:
        group: A key of ``GROUPS``.
        word: One of ``words``, or ``package.module:Class``.
        typed: Values of the kind's own keys.
        key: The key that names the kind.
        words: The kinds of ours that are possible.

    Raises:
        ConfigError: If there is no such kind, or a key or a value is wrong.
    """
    if ":" not in word and word not in words:
        raise ConfigError(unknown(key, word, words))
    factory = resolve(group, word)
    defaults = page_of_kind(group, word).defaults
    given = {key: value for key, value in defaults.items() if value != REQUIRED}
    return bind(factory, {**given, **typed}, where=f"{key}={word}")
