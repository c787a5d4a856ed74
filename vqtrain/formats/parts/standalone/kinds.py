"""Takes the place of ``vqtrain.build`` in standalone code: a closed table of kinds.

Nothing is imported by a name that stands in a file.
"""

from collections.abc import Mapping

from vqtrain.build import check_arguments, kind_and_arguments, parameters_of
from vqtrain.errors import ConfigError

# By group and word. The code that is made for a tokenizer fills it with the kinds of this one.
KINDS: dict[tuple[str, str], type] = {}


def resolve(group: str, kind: str, *, where: str | None = None) -> type:
    """Look a kind word up.

    Raises:
        ConfigError: If it is not in the table.
    """
    if (group, kind) not in KINDS:
        words = ", ".join(sorted(word for each, word in KINDS if each == group))
        raise ConfigError(f"{where or group}.kind is {kind!r}, this code has: {words}")
    return KINDS[group, kind]


def build(
    group: str, kind: str, arguments: Mapping[str, object], *, where: str | None = None
) -> object:
    """Build the object that a kind word and its arguments describe.

    Raises:
        ConfigError: If the kind is not in the table, or an argument is impossible.
    """
    factory = resolve(group, kind, where=where)
    built: object = factory(**check_arguments(factory, arguments, where=where or group))
    return built


def build_part(
    group: str, specification: Mapping[str, object], *, where: str | None = None
) -> object:
    """Build one part from ``{"kind": word, "arguments": {...}}``."""
    return build(group, *kind_and_arguments(group, specification), where=where)


def in_context(
    group: str,
    specification: Mapping[str, object],
    context: Mapping[str, object],
    *,
    where: str | None = None,
) -> dict[str, object]:
    """Add to a part's arguments what its constructor takes by name."""
    kind, arguments = kind_and_arguments(group, specification)
    parameters = parameters_of(resolve(group, kind, where=where))
    taken = {name: value for name, value in context.items() if name in parameters}
    return {"kind": kind, "arguments": {**taken, **arguments}}
