"""Types and ranges of settings, declared on the fields and arguments that hold them.

    batch_size: Annotated[int, at_least(1)]
    limit: Annotated[int, at_least(1)] | None
    precision: Annotated[str, one_of("32-true", "64-true")]

``build.check_arguments``, ``check_fields`` and ``checked`` refuse other values, and name the valid
ones.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar, Unpack, final

from vqtrain.errors import ConfigError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class Range:
    """A condition on a value of an annotated type.

    Attributes:
        words: What follows "must be" in a message.
        holds: Says whether a value meets it.
        choices: All valid values, if they can be listed.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: Iterable[str] = ()


def at_least(least: int | float) -> Range:
    """Take this number and larger ones."""
    return Range(f"at least {least}", lambda value: value >= least)


def at_most(largest: int | float) -> Range:
    """Take this number and smaller ones."""
    return Range(f"at most {largest}", lambda value: value <= largest)


def above(bound: int | float) -> Range:
    """Take larger numbers."""
    return Range(f"above {bound}", lambda value: value > bound)


def within(low: int | float, high: int | float, *, below_high: bool = False) -> Range:
    """Take the numbers of an interval, with both ends or, with ``below_high``, without the last."""
    if below_high:
        return Range(f"in [{low}, {high})", lambda value: low <= value < high)
    return Range(f"in [{low}, {high}]", lambda value: low <= value <= high)


def one_of(*choices: str) -> Range:
    """Take one of some words."""
    return Range(f"one of {', '.join(choices)}", lambda value: value in choices, choices)


FINITE = Range("finite", math.isfinite)


def check_fields(settings: Any, where: str) -> None:  # noqa: ANN401 - any dataclass
    """Check the fields of a dataclass by their annotations; call it in ``__post_init__``.

    Args:
        settings: The dataclass.
        where: The config key that holds its fields, for messages; "" if none does.

    Raises:
        ConfigError: If a value is of a wrong type, or out of range.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        check(dotted(where, field.name), getattr(settings, field.name), hints[field.name])


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a function, such as a constructor, refuse arguments that are out of range.

    Arguments that several functions share may be a ``TypedDict``, taken as
    ``**shared: Unpack[Shared]``. They stand in the signature as if each were written there.
    """
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = []
    for each in signature.parameters.values():
        if typing.get_origin(hints.get(each.name)) is Unpack:
            (declared,) = typing.get_args(hints.pop(each.name))
            shared = typing.get_type_hints(declared, include_extras=True)
            hints |= shared
            parameters += [
                inspect.Parameter(name, each.KEYWORD_ONLY, annotation=hint)
                for name, hint in shared.items()
            ]
        else:
            parameters.append(each)
    signature = signature.replace(parameters=parameters)

    @functools.wraps(function)
    def call(*positional: Parameters.args, **named: Parameters.kwargs) -> Result:
        for name, value in signature.bind(*positional, **named).arguments.items():
            if any(ranges for _, ranges in options(hints.get(name))):
                check(name, value, hints[name])
        return function(*positional, **named)

    call.__annotations__, call.__dict__["__signature__"] = hints, signature
    return call


def check(key: str, value: object, hint: object) -> None:
    """Refuse a value that is not of an annotated type, or out of its range.

    Raises:
        ConfigError: If it is; the message says what is valid.
    """
    wanted = expected(value, hint)
    if wanted is not None:
        choices = choices_of(hint)
        words = [str(item) for item in (value if isinstance(value, list) else [value])]
        near = [nearest(word, choices) for word in words]
        found = [f"; did you mean {each}?" for each in near if each and each not in words]
        if expected([value], hint) is None:
            found = [f"; write {key}=[{value}]"]
        raise ConfigError(f"{key} must be {wanted}, got {value!r}{''.join(found[:1])}")


def nearest(word: str, valid: Iterable[str], *, alike: float = 0.6) -> str | None:
    """Return the valid word that a misspelt one stands for: of those alike, the fewest edits away.

    Args:
        word: As it was typed.
        valid: What it may stand for.
        alike: The least ratio of ``difflib`` at which words are alike.

    Returns:
        The word, or None if none is alike.

    Example:
        >>> nearest("fqs", ["fsq", "lfq", "vq"]), nearest("net", ["vq"])
        ('fsq', None)
    """
    choices = list(valid)
    found = difflib.get_close_matches(word, choices, n=max(1, len(choices)), cutoff=alike)
    return min(found, key=lambda choice: edits(word, choice), default=None)


def shortest_ending_in(word: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that end in a word, of these the ones with the fewest groups before it.

    Example:
        >>> shortest_ending_in("lr", ["optim.discriminator.lr", "optim.lr", "seed"])
        ['optim.lr']
    """
    found = [key for key in keys if key.endswith(f".{word}")]
    fewest = min((key.count(".") for key in found), default=0)
    return [key for key in found if key.count(".") == fewest]


def edits(one: str, other: str) -> int:
    """Count the edits between two words: a letter more, less or changed, or neighbors swapped.

    The optimal string alignment distance; swapped letters are the commonest slip of all.
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        counts = [row]
        for column, its in enumerate(other, start=1):
            counts.append(min(last[column], counts[-1], last[column - 1] - (letter == its)) + 1)
            swapped = row > 1 and column > 1 and one[row - 2 : row] == its + other[column - 2]
            if swapped:
                counts[-1] = min(counts[-1], before[column - 2] + 1)
        before, last = last, counts
    return last[-1]


def dotted(where: str, name: str) -> str:
    """Write a key below another, or alone.

    Example:
        >>> dotted("data", "crop"), dotted("", "crop")
        ('data.crop', 'crop')
    """
    return f"{where}.{name}" if where else name


def options(hint: object) -> Iterator[tuple[object, Iterable[Range]]]:
    """Yield each type of a union, or the one type, with its ranges."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from options(each)
    elif typing.get_origin(hint) is Annotated:
        plain, *ranges = typing.get_args(hint)
        yield plain, [each for each in ranges if isinstance(each, Range)]
    else:
        yield hint, []


def choices_of(hint: object) -> list[str]:
    """Return the words that a type, or an item of it, takes; none if they cannot be listed."""
    found: list[str] = []
    for plain, ranges in options(hint):
        found += [word for each in ranges for word in each.choices]
        found += [word for inner in typing.get_args(plain) for word in choices_of(inner)]
    return found


def widened(value: object, hint: object) -> object:
    """Turn a whole number into a float where only floats are valid."""
    plain = [each for each, _ in options(hint)]
    if isinstance(value, int) and not isinstance(value, bool) and float in plain:
        return value if int in plain else float(value)
    return value


def expected(value: object, hint: object) -> str | None:
    """Say what a value must be to fit an annotated type, in words; None if it fits."""
    found = []
    for plain, ranges in options(hint):
        wanted = _expected_type(value, plain)
        if wanted is not None:
            # Those of a list, such as [height,width], say more to whoever gives no list at all.
            say_all = typing.get_origin(plain) is list and not isinstance(value, list)
            named = (each.words for each in ranges if each.choices or say_all)
            found.append(next(named, wanted))
        elif all(each.holds(value) for each in ranges):
            return None
        else:
            found.append(" and ".join(each.words for each in ranges))
    return " or ".join(found)


def _expected_type(value: object, plain: object) -> str | None:
    origin, inner = typing.get_origin(plain), typing.get_args(plain)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return None if isinstance(value, Mapping) else "a mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        items = value if isinstance(value, list | tuple) else [object()]
        wanted = next(filter(None, (expected(item, inner[0]) for item in items)), None)
        return None if wanted is None else f"a list, each item {wanted}"
    if plain is None or plain is type(None):
        return None if value is None else "null"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    assert isinstance(plain, type), f"{plain} is no type of a setting"
    accepted = (int, float) if plain is float else plain
    if isinstance(value, accepted) and (plain is bool or not isinstance(value, bool)):
        return None
    return words.get(plain, str(plain))


def resolve_fractions(
    settings: Mapping[str, object], max_steps: int, prefix: str = ""
) -> dict[str, object]:
    """Turn step values that are a share of the run, such as "10%", into steps.

    A key is a step value if its name ends in ``_step``, ``_steps`` or ``_every``. An interval is at
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
