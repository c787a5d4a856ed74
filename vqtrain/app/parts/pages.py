"""What is said of a command or a kind: in the comments of its yaml, or in its docstrings.

Of our own ones the yaml says everything, the words that a key takes as well, so that a help imports
none of them.
"""

import dataclasses
import importlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import COMMAND_PATH_KEYS, flatten
from vqtrain.build import config_of, kinds, package_of, resolve
from vqtrain.ranges import choices_of

# The default of a key that must be given.
REQUIRED = "???"
# Arguments that are no keys.
CONTEXT = ("words", "command_line")
USAGE, EXAMPLES = "usage: ", "examples:"
# In the yaml of a format: the commands that it is for.
COMMANDS = "commands: "
# In the yaml of a command: a list of kinds, and the key that chooses one, whose keys are valid too.
LISTING = re.compile(r"\$\{(?:(\w+)=)?(train|launcher|format\.export|format\.convert)\}")
COMPOSED = "is_composed = True"


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """What is said of a command or a kind.

    Attributes:
        summary: In a few words.
        about: What comes before the keys.
        defaults: The value of each key if none is given.
        meanings: Of each key, with the words that it takes.
        notes: What comes after the keys, where ``${launcher}`` is a list of kinds.
        examples: Command lines.
        is_composed: Of a command, whether it takes the groups and keys of ``vqtrain train``.
        takes_any: Of a command, whether it takes keys that are not named.
        path_keys: Of a command, those of its keys that are paths in it alone.
    """

    summary: str
    about: str = ""
    defaults: Mapping[str, Any]
    meanings: Mapping[str, str]
    notes: str = ""
    examples: str = ""
    is_composed: bool = False
    takes_any: bool = False
    path_keys: Sequence[str] = ()


def page_of(word: str, command: Command | None = None) -> Page:
    """Return what is said of a command: in its yaml, or of a third party's in its docstrings.

    Args:
        word: The kind word of the command, or ``package.module:Class``.
        command: That of a third party.
    """
    if command is None:
        page = read_page(config_of("command", word).read_text(encoding="utf-8"))
        paths = COMMAND_PATH_KEYS.get(word, ())
        return dataclasses.replace(page, is_composed=is_composed(word), path_keys=paths)
    text = inspect.getdoc(command) or ""
    defaults, meanings = keys_in_signature(command.run)
    parameters = inspect.signature(command.run).parameters.values()
    return Page(
        summary=text.partition("\n")[0],
        about=f"{USAGE}vqtrain {word} [key=value ...]\n\n{text}".strip(),
        defaults=defaults,
        meanings=meanings,
        is_composed=command.is_composed,
        takes_any=any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters),
    )


def is_composed(word: str) -> bool:
    """Say whether one of our commands takes the keys of ``vqtrain train``, by its source."""
    package = importlib.import_module(package_of("command"))
    return COMPOSED in Path(package.__path__[0], f"{word}.py").read_text(encoding="utf-8")


def page_of_kind(group: str, word: str) -> Page:
    """Return what is said of a kind: in its yaml, or of a third party's in its docstrings."""
    if ":" in word:
        factory = resolve(group, word)
        defaults, meanings = keys_in_signature(factory)
        summary = (inspect.getdoc(factory) or "").partition("\n")[0]
        return Page(summary=summary, defaults=defaults, meanings=meanings)
    page = read_page(config_of(group, word).read_text(encoding="utf-8"))
    defaults = {key: value for key, value in page.defaults.items() if key != "kind"}
    return dataclasses.replace(page, defaults=defaults)


def kinds_for(name: str) -> dict[str, Page]:
    """Return our kinds of a group, as ``launcher``; for ``format.export`` those of a command."""
    group, _, command = name.partition(".")
    pages = {word: page_of_kind(group, word) for word in kinds(group)}
    return {
        word: page
        for word, page in pages.items()
        if not command or command in page.about.removeprefix(COMMANDS).split(", ")
    }


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
            inner, inner_meanings = keys_in_signature(typing.cast(type, hint))
            defaults, meanings = {**defaults, **inner}, {**meanings, **inner_meanings}
            continue
        default = parameters[name].default
        defaults[name] = REQUIRED if default is inspect.Parameter.empty else default
        found = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
        said = " ".join(found[1].split()) if found else ""
        meanings[name] = ": ".join(filter(None, [said, ", ".join(choices_of(hint))]))
    return defaults, meanings


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


def describe(defaults: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
    """List keys with their meaning and their default."""
    width = max(map(len, defaults), default=0) + 1
    lines = ["keys:"] if defaults else []
    for key, default in defaults.items():
        shown = default if isinstance(default, str) else json.dumps(default)
        end = "" if default == REQUIRED else f" [{shown}]"
        lines.append(f"  {key:<{width}} {meanings[key]}{end}")
    return "\n".join(lines)


def describe_kinds(pages: Mapping[str, Page]) -> str:
    """List kinds, each with its summary, and with its own keys below it."""
    lines = []
    width = max(map(len, pages)) + 1
    for word, page in pages.items():
        lines.append(f"  {word:<{width}} {page.summary}")
        described = describe(page.defaults, page.meanings)
        lines += [f"  {line}" for line in described.splitlines()[1:]]
    return "\n".join(lines)
