"""From the group ``data`` of a configuration to its settings."""

from collections.abc import Mapping

from vqtrain.build import bind, final_class
from vqtrain.data.media import media_in
from vqtrain.data.settings.base import DataSettings, check_sources


def bind_data(group: Mapping[str, object]) -> DataSettings:
    """Check the keys of ``data``.

    Raises:
        ConfigError: If there is no such kind, or a key is unknown, missing or invalid.
    """
    keys = {key: value for key, value in group.items() if key != "kind"}
    for key in ("train", "val"):
        if key in keys:  # what they may be is said better than their types say it
            check_sources(f"data.{key}", keys[key])
    module = f"vqtrain.data.settings.{media_in(group).word}"
    settings: type[DataSettings] = final_class(module, DataSettings)
    return bind(settings, keys, where="data")
