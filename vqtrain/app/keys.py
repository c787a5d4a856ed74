"""Keys of the commands that compose no configuration: their help, and what was typed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqtrain.app.compose import parse, read_command_line
from vqtrain.build import unknown
from vqtrain.errors import ConfigError

# Each key, its value if none is given, and what it says.
Keys = Mapping[str, tuple[object, str]]


def describe(keys: Keys) -> str:
    """List keys with their meaning and default, for ``--help``."""
    width = max(map(len, keys)) + 1
    defaults = {key: "null" if value is None else value for key, (value, _) in keys.items()}
    return "\n".join(f"  {key:<{width}} {keys[key][1]} [{defaults[key]}]" for key in keys)


def read_keys(command: str, words: Sequence[str], keys: Keys) -> dict[str, Any] | None:
    """Return the value of every key, or None for ``--help``.

    Args:
        command: The words before the keys, for messages, such as ``vqtrain pack``.
        words: The rest of the command line.
        keys: Those that the command has.

    Raises:
        ConfigError: If a key or an option is unknown, or a value cannot be read.
    """
    command_line = read_command_line(words)
    if command_line.config_dir is not None or command_line.print_config:
        raise ConfigError(f"{command} has no configuration: its only option is --help")
    overrides = [parse(word) for word in command_line.overrides]
    typed: dict[str, object] = {o.key_or_group: o.value() for o in overrides}
    typed |= command_line.paths
    for key in typed:
        if key not in keys:
            raise ConfigError(unknown("key", key, keys))
    if command_line.show_help:
        return None
    return {key: default for key, (default, _) in keys.items()} | typed


def taken(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Take some keys out of a command's, and return them with their values."""
    return {name: values.pop(name) for name in names}
