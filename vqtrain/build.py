"""From plain data to objects: a kind word becomes a class, a mapping becomes its arguments.

The kind word is the registry: ``codebook: fsq`` is the one final class of
``vqtrain/codebooks/fsq.py``. A class of a third party is written ``package.module:Class``. This
holds for every group of ``GROUPS``. What the kinds of a group share is in its package's ``parts/``.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vqtrain.errors import ConfigError
from vqtrain.ranges import check, dotted, nearest, shortest_ending_in, widened

Built = TypeVar("Built")

# A message lists at most this many words.
MAX_LISTED = 20

# The contract of each group: the base class of all its kinds. Its package holds our own kinds.
GROUPS = {
    "encoder": "vqtrain.encoders.base:Encoder",
    "codebook": "vqtrain.codebooks.base:Codebook",
    "decoder": "vqtrain.decoders.base:Decoder",
    "latent_noise": "vqtrain.latent_noise.base:LatentNoise",
    "discriminator": "vqtrain.discriminators.base:Discriminator",
    "format": "vqtrain.formats.base:Format",
    "loss": "vqtrain.losses.base:LossTerm",
    "adversarial": "vqtrain.losses.adversarial.base:AdversarialLoss",
    "alignment": "vqtrain.losses.alignment.base:Alignment",
    "metric": "vqtrain.metrics.base:Metric",
    "launcher": "vqtrain.launchers.base:Launcher",
    "command": "vqtrain.app.base:Command",
}
# Facts of the run that a constructor may take by name: the channels of a sample (under the names of
# an encoder and of a decoder), the sizes of its axes, those of what is aligned, and others.
CONTEXT = (
    *("in_channels", "out_channels", "sample_size", "aligned_channels", "aligned_grid"),
    *("sample_rate", "max_steps", "world_size", "weights"),
)
# Keys in the groups of parts that say how the run begins with them, and are no arguments.
OF_THE_RUN = ("grow_from",)
# Modules of a group's package that are not kinds; packages are not kinds either.
OTHERS = ("base", "contract")


def package_of(group: str) -> str:
    """Return the name of the package that holds the kinds of a group."""
    return GROUPS[group].partition(":")[0].removesuffix(".base")


def contract_of(group: str) -> type:
    """Return the base class that every kind of a group inherits."""
    module, _, name = GROUPS[group].partition(":")
    contract: type = getattr(importlib.import_module(module), name)
    return contract


def group_of(part: type) -> str:
    """Return the group whose contract a class keeps.

    Raises:
        ConfigError: If there is none.
    """
    found = [group for group in GROUPS if issubclass(part, contract_of(group))]
    if not found:
        contracts = ", ".join(contract.replace(":", ".") for contract in GROUPS.values())
        raise ConfigError(f"{part.__name__} is no part: it must inherit from one of {contracts}")
    return found[0]


def kinds(group: str) -> list[str]:
    """List the kind words of a group, such as ``codebook``; imports none of them."""
    package = importlib.import_module(package_of(group))
    names = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg}
    return sorted(names.difference(OTHERS))


def configs_folder() -> Path:
    """Find the configs: inside the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    inside, outside = package / "configs", package.parent / "configs"
    return inside if inside.is_dir() else outside


def config_of(group: str, kind: str) -> Path:
    """Return the yaml of one of our own kinds."""
    return configs_folder() / group / f"{kind}.yaml"


def resolve(group: str, kind: str, *, where: str | None = None) -> type:
    """Find the class that a kind word names.

    Args:
        group: A key of ``GROUPS``.
        kind: A word of ``kinds(group)``, or ``package.module:Class``.
        where: The config key that holds it and its arguments; None for that of the group.

    Raises:
        ConfigError: If there is no such class, or it does not keep the contract of the group.
    """
    contract, key = contract_of(group), f"{where or group}.kind"
    if ":" not in kind:
        if kind not in kinds(group):
            raise ConfigError(f"{key}: {unknown('kind', kind, kinds(group))}")
        return final_class(f"{package_of(group)}.{kind}", contract)
    found = third_party(kind, where=key)
    if not issubclass(found, contract):
        raise ConfigError(
            f"{key}: {kind} must inherit from {contract.__module__}.{contract.__name__}"
        )
    return found


def final_class(module_name: str, contract: type) -> type:
    """Import one of our own modules, and return its one final class of a contract."""
    module = importlib.import_module(module_name)
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, contract)
        and getattr(value, "__final__", False)
    ]
    assert len(found) == 1, f"{module.__name__} must hold one final class, it holds {found}"
    return found[0]


def third_party(kind: str, *, where: str) -> type:
    """Import ``package.module:Class``; a module of the current folder is found, too.

    Args:
        kind: What to import.
        where: The key that names it, for messages.

    Raises:
        ConfigError: If it cannot be imported, or is not a class.
    """
    module_name, _, class_name = kind.partition(":")
    if "" not in sys.path:  # the current folder; last, so that it hides nothing that is installed
        sys.path.append("")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        names = vars(sys.modules[module_name]) if module_name in sys.modules else {}
        classes = [name for name, value in names.items() if inspect.isclass(value)]
        near = nearest(class_name, classes)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ConfigError(f"{where}: cannot import {kind!r}: {error}{hint}") from error
    if not inspect.isclass(found):
        raise ConfigError(f"{where}: {kind!r} is not a class")
    return found


def build(
    group: str,
    kind: str,
    arguments: Mapping[str, object],
    *,
    where: str | None = None,
) -> object:
    """Build the object that a kind word and its arguments describe.

    Args:
        group: A key of ``GROUPS``.
        kind: As of ``resolve``.
        arguments: Of the constructor, by name.
        where: The config key that holds them, for messages; None for that of the group.

    Raises:
        ConfigError: If the kind or an argument is unknown, missing, of a wrong type or impossible;
            the message begins with the group or with the argument's config key.
    """
    where = where or group
    factory = resolve(group, kind, where=where)
    checked = check_arguments(factory, arguments, where=where)
    try:
        if ":" not in kind:
            return factory(**checked)
        return build_own(factory, checked, contract_of(group))
    except ConfigError as error:
        is_of_argument = str(error).partition(" ")[0] in checked
        key = f"{where}." if is_of_argument else ""
        raise ConfigError(f"{where}={kind}: {key}{error}") from error
    except RuntimeError as error:  # torch has no special type for this on the CPU
        if "allocate memory" not in str(error):
            raise
        needed = re.search(r"allocate (\d+) bytes", str(error))
        amount = f"{int(needed[1]) / 1e9:,.0f} GB of memory" if needed else "too much memory"
        raise ConfigError(f"{where}={kind}: its sizes need {amount}") from error


def build_own(factory: type, arguments: Mapping[str, object], contract: type) -> object:
    """Build an object of a third party's class, and check that it has what its contract declares.

    What its methods do is checked by ``vqtrain doctor part=CLASS``.

    Raises:
        ConfigError: If a method or an attribute is missing or of a wrong type, or if the
            constructor fails.
    """
    name = f"{contract.__module__}.{contract.__qualname__}"
    missing = sorted(getattr(factory, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"the contract {name} asks for {' and '.join(missing)}")
    try:
        built: object = factory(**arguments)
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(raised_at(error, factory)) from error
    for base in factory.__mro__:
        if base.__module__ != contract.__module__:
            continue
        hints = typing.get_type_hints(base)
        for attribute in base.__annotations__:
            if not hasattr(built, attribute):
                raise ConfigError(f"the contract {name} asks for the attribute {attribute}")
            check(attribute, getattr(built, attribute), hints[attribute])
    return built


def raised_at(error: BaseException, own: type) -> str:
    """Say in a line what a third party's class has raised, and in which line of its file."""
    file = sys.modules[own.__module__].__file__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    place = f"{file}:{lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {' '.join(str(error).split())}"


def in_context(
    group: str,
    specification: Mapping[str, object],
    context: Mapping[str, object],
    *,
    where: str | None = None,
) -> dict[str, object]:
    """Add to a part's arguments the context of the run that its constructor takes by name.

    Args:
        group: A key of ``GROUPS``.
        specification: ``{"kind": word, "arguments": {...}}``.
        context: What is known of the run, by names of ``CONTEXT``. Arguments that are set are not
            changed.
        where: As of ``resolve``.

    Raises:
        ConfigError: If there is no such kind.
    """
    kind, arguments = kind_and_arguments(group, specification)
    parameters = parameters_of(resolve(group, kind, where=where))
    taken = {name: value for name, value in context.items() if name in parameters}
    return {"kind": kind, "arguments": {**taken, **arguments}}


def kind_and_arguments(
    group: str, specification: Mapping[str, object]
) -> tuple[str, Mapping[str, object]]:
    """Read ``{"kind": word, "arguments": {...}}``."""
    kind, arguments = specification.get("kind"), specification.get("arguments")
    if not isinstance(kind, str) or not isinstance(arguments, Mapping):
        raise ConfigError(f'{group} must be {{"kind": word, "arguments": {{...}}}}')
    return kind, arguments


def split_kind(group: Mapping[str, object]) -> dict[str, object]:
    """Turn a part's group into ``{"kind": word, "arguments": {...}}``, without ``OF_THE_RUN``."""
    arguments = {name: value for name, value in group.items() if name not in OF_THE_RUN}
    return {"kind": arguments.pop("kind", None), "arguments": arguments}


def build_part(
    group: str, specification: Mapping[str, object], *, where: str | None = None
) -> object:
    """Build one part from ``{"kind": word, "arguments": {...}}``; see ``build``."""
    return build(group, *kind_and_arguments(group, specification), where=where)


def build_third_party(
    kind: object,
    arguments: Mapping[str, object],
    *,
    contract: type,
    where: str,
    context: Mapping[str, object],
) -> Any:  # noqa: ANN401 - an object of the contract
    """Build an object of a class that belongs to no group, such as a callback.

    Its annotations may be of any kind, so only the names of its arguments are checked here.

    Args:
        kind: ``package.module:Class``.
        arguments: Of the constructor, by name.
        contract: What the class must inherit from.
        where: The config key that holds them, for messages.
        context: Further arguments, given if the constructor has one of that name.

    Raises:
        ConfigError: If the class cannot be imported or is no such class, an argument is unknown,
            or the constructor refuses them.
    """
    if not isinstance(kind, str) or ":" not in kind:
        raise ConfigError(f"{where}.kind must be package.module:Class, got {kind!r}")
    found = third_party(kind, where=f"{where}.kind")
    if not issubclass(found, contract):
        raise ConfigError(
            f"{where}.kind: {kind} must inherit from {contract.__module__}.{contract.__name__}"
        )
    parameters = inspect.signature(found).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            raise ConfigError(f"{where}: {unknown('key', name, parameters)}")
    given = {name: value for name, value in context.items() if name in parameters}
    try:
        return found(**{**given, **arguments})
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{where}: cannot build {kind}: {reason}") from error


def bind(factory: Callable[..., Built], arguments: Mapping[str, object], *, where: str) -> Built:
    """Call ``factory`` with arguments that were checked against its signature first.

    Args:
        factory: A class or function with annotated keyword arguments.
        arguments: What to call it with.
        where: The config key that holds the arguments, for messages; "" if none does.

    Raises:
        ConfigError: If an argument is unknown, missing, of a wrong type or out of range, or if the
            factory refuses it.
    """
    return factory(**check_arguments(factory, arguments, where=where))


def parameters_of(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """List what a class or function takes by name; nothing of ``*args`` and ``**kwargs``."""
    return {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def check_arguments(
    factory: Callable[..., object], arguments: Mapping[str, object], *, where: str
) -> dict[str, object]:
    """Return the arguments, with integers widened to floats where needed, or refuse them."""
    parameters = parameters_of(factory)
    hints = typing.get_type_hints(
        factory.__init__ if inspect.isclass(factory) else factory, include_extras=True
    )
    for name in arguments:
        if name not in parameters:
            unknown_key = unknown("key", name, parameters)
            raise ConfigError(f"{where}: {unknown_key}" if where else unknown_key)
    checked: dict[str, object] = {}
    for name, parameter in parameters.items():
        if name in arguments:
            check(dotted(where, name), arguments[name], hints[name])
            checked[name] = widened(arguments[name], hints[name])
        elif parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{dotted(where, name)} is missing")
    return checked


def unknown(what: str, word: str, valid: Iterable[str]) -> str:
    """Say that a word is unknown, with the nearest valid word or the valid words.

    Example:
        >>> unknown("key", "encoder.freeze", ["codebook.size", "encoder.kind", "encoder.width"])
        "unknown key 'encoder.freeze', valid are: encoder.kind, encoder.width"
    """
    choices = sorted(valid)
    if inside := shortest_ending_in(word, choices):
        return f"unknown {what} {word!r}, did you mean {' or '.join(map(repr, inside))}?"
    group = f"{word.rpartition('.')[0]}."
    siblings = {key.removeprefix(group): key for key in choices if key.startswith(group)}
    if siblings:  # the common start of their names says nothing about the rest
        near = nearest(word.removeprefix(group), siblings)
        near, choices = near and siblings[near], list(siblings.values())
    else:
        # A key within a group is never a misspelt group.
        similar = [choice for choice in choices if "." in choice or "." not in word]
        near = nearest(word, similar)
    if near:
        return f"unknown {what} {word!r}, did you mean {near!r}?"
    if not choices or (len(choices) > MAX_LISTED and not siblings):
        return f"unknown {what} {word!r}, --help lists the valid ones"
    return f"unknown {what} {word!r}, valid are: {', '.join(choices)}"
