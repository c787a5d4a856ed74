"""Checks of sizes that every network makes when it is built."""

from vqtrain.errors import ConfigError


def check_at_least(minimum: int, **values: int) -> None:
    """Refuse sizes that are too small.

    Args:
        minimum: The smallest value that works.
        **values: Sizes by the name of their argument.

    Raises:
        ConfigError: If a value is below the minimum.
    """
    for name, value in values.items():
        if value < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}")
