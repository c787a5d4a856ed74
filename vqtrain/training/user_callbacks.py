"""The user's own callbacks: any of Lightning's, built from the ``callbacks`` config group."""

from collections.abc import Mapping

from lightning.pytorch import Callback

from vqtrain.build import build_third_party
from vqtrain.errors import ConfigError
from vqtrain.ranges import resolve_fractions


def build_callbacks(settings: Mapping[str, object], max_steps: int) -> dict[str, Callback]:
    """Build callbacks, each from its ``kind`` and the arguments of its constructor.

    Args:
        settings: The group: for each name ``kind``, ``package.module:Class``, and arguments; None
            leaves it out.
        max_steps: Of the run, for step values that are a share of it.

    Raises:
        ConfigError: If a class cannot be imported, is no callback or refuses its arguments.
    """
    callbacks: dict[str, Callback] = {}
    for name, keys in resolve_fractions(settings, max_steps, "callbacks.").items():
        where = f"callbacks.{name}"
        if keys is None:
            continue
        if not isinstance(keys, Mapping):
            raise ConfigError(
                f"{where} must hold a kind and its arguments, such as "
                f"{where}.kind=package.module:Class, got {keys!r}"
            )
        arguments = {key: value for key, value in keys.items() if key != "kind"}
        callbacks[name] = build_third_party(
            keys.get("kind"), arguments, contract=Callback, where=where, context={}
        )
    return callbacks
