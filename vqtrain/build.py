"""From plain data to objects: a kind word becomes a class, a mapping becomes its arguments.

The kind word is the registry: ``codebook: fsq`` is the one final class of
``vqtrain/codebooks/fsq.py``. A class of a third party is written ``package.module:Class``.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from vqtrain.errors import ConfigError

Built = TypeVar("Built")

# More words than these are no help in a message.
MAX_LISTED = 20

PACKAGES = {
    "encoder": "vqtrain.encoders",
    "codebook": "vqtrain.codebooks",
    "decoder": "vqtrain.decoders",
    "discriminator": "vqtrain.discriminators",
}


def kinds(group: str) -> list[str]:
    """List the kind words of a group, such as ``codebook``."""
    package = importlib.import_module(PACKAGES[group])
    return sorted(
        module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base"
    )


def resolve(group: str, kind: str) -> type:
    """Find the class that a kind word names.

    Args:
        group: A key of ``PACKAGES``.
        kind: A word of ``kinds(group)``, or ``package.module:Class``.

    Raises:
        ConfigError: If there is no such class.
    """
    if ":" in kind:
        return third_party(group, kind)
    if kind not in kinds(group):
        raise ConfigError(f"{group}.kind: {unknown('kind', kind, kinds(group))}")
    return final_class(f"{PACKAGES[group]}.{kind}")


def final_class(module_name: str) -> type:
    """Import a module of ours, and return the one final class that it holds."""
    module = importlib.import_module(module_name)
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and getattr(value, "__final__", False)
    ]
    assert len(found) == 1, f"{module.__name__} must hold exactly one final class, it holds {found}"
    return found[0]


def third_party(group: str, kind: str) -> type:
    """Import ``package.module:Class``."""
    module_name, _, class_name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{group}.kind: cannot import {kind!r}: {error}") from error
    if not inspect.isclass(found):
        raise ConfigError(f"{group}.kind: {kind!r} is not a class")
    return found


def build(group: str, kind: str, arguments: Mapping[str, object]) -> object:
    """Build the object that a kind word and its arguments describe.

    Raises:
        ConfigError: If the kind or an argument is unknown, missing, of a wrong type or impossible;
            the message begins with the group or with the argument's config key.
    """
    factory = resolve(group, kind)
    checked = check_arguments(factory, arguments, where=group)
    try:
        return factory(**checked)
    except ConfigError as error:
        raise ConfigError(f"{group}={kind}: {error}") from error
    except RuntimeError as error:  # torch has no type of its own for it on the CPU
        if "allocate memory" not in str(error):
            raise
        needed = re.search(r"allocate (\d+) bytes", str(error))
        amount = f"{int(needed[1]) / 1e9:,.0f} GB" if needed else "more than there is"
        raise ConfigError(f"{group}={kind}: its sizes need {amount} of memory") from error


def build_part(group: str, specification: Mapping[str, object]) -> object:
    """Build one module from ``{"kind": word, "arguments": {...}}``; see ``build``."""
    kind, arguments = specification.get("kind"), specification.get("arguments")
    if not isinstance(kind, str) or not isinstance(arguments, Mapping):
        raise ConfigError(f'{group} must be {{"kind": word, "arguments": {{...}}}}')
    return build(group, kind, arguments)


def bind(factory: Callable[..., Built], arguments: Mapping[str, object], *, where: str) -> Built:
    """Call ``factory`` with arguments that were checked against its signature first.

    Args:
        factory: A class or function with annotated keyword arguments.
        arguments: What to call it with.
        where: The config key that holds the arguments, for messages.

    Raises:
        ConfigError: If an argument is unknown, missing or of a wrong type, or if the factory
            refuses it.
    """
    return factory(**check_arguments(factory, arguments, where=where))


def check_arguments(
    factory: Callable[..., object], arguments: Mapping[str, object], *, where: str
) -> dict[str, object]:
    """Return the arguments, integers widened where floats are meant, or say what is wrong."""
    parameters = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    for name in arguments:
        if name not in parameters:
            raise ConfigError(f"{where}: {unknown('key', name, parameters)}")
    checked: dict[str, object] = {}
    for name, parameter in parameters.items():
        if name not in arguments:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"{where}.{name} is missing")
            continue
        value, hint = arguments[name], hints[name]
        if isinstance(value, int) and not isinstance(value, bool) and not fits(value, hint):
            value = float(value) if fits(float(value), hint) else value
        if not fits(value, hint):
            raise ConfigError(f"{where}.{name} must be {describe(hint)}, got {value!r}")
        checked[name] = value
    return checked


def fits(value: object, hint: object) -> bool:
    """Say whether plain data (numbers, words, lists, mappings) is of an annotated type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(
            fits(item, inner[0]) or (isinstance(item, int) and fits(float(item), inner[0]))
            for item in value
        )
    if hint is None or hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, hint)


def describe(hint: object) -> str:
    """Say in words what an annotated type takes."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in inner)
    if origin is not None and issubclass(origin, Mapping):
        return "a mapping"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list, each item {describe(inner[0])}"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a word",
        type(None): "null",
    }
    return words.get(typing.cast(type, hint), str(hint))


def unknown(what: str, word: str, valid: Iterable[str]) -> str:
    """Say that a word is not known, with the nearest valid one, or those that may be meant."""
    choices = sorted(valid)
    # Whoever wrote a key in a group does not mean the group.
    alike = [choice for choice in choices if "." in choice or "." not in word]
    near = difflib.get_close_matches(word, alike, n=1)
    if near:
        return f"unknown {what} {word!r}, did you mean {near[0]!r}?"
    if len(choices) > MAX_LISTED:
        beside = f"{word.rpartition('.')[0]}."
        choices = [choice for choice in choices if choice.startswith(beside)]
    if not choices:
        return f"unknown {what} {word!r}, --help lists the valid ones"
    return f"unknown {what} {word!r}, valid are: {', '.join(choices)}"


def resolve_fractions(
    settings: Mapping[str, object], max_steps: int, prefix: str = ""
) -> dict[str, object]:
    """Turn step values that are written as a share of the run, such as "10%", into steps.

    A key is a step value if its name ends in ``_step``, ``_steps`` or ``_every``. Intervals are at
    least one step.
    """
    resolved: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            resolved[key] = resolve_fractions(value, max_steps, f"{prefix}{key}.")
        elif isinstance(value, str) and re.search(r"_(step|steps|every)$", key):
            resolved[key] = fraction_of(value, max_steps, f"{prefix}{key}")
        else:
            resolved[key] = value
    return resolved


def fraction_of(text: str, max_steps: int, key: str) -> int:
    """Turn "10%" into steps."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if match is None or float(match[1]) > 100:
        raise ConfigError(
            f'{key} must be a number of steps or a share, "0%" to "100%", got {text!r}'
        )
    steps = round(float(match[1]) / 100 * max_steps)
    return max(1, steps) if key.endswith("_every") else steps
