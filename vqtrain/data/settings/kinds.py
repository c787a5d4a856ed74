"""From the group ``data`` of a configuration to its settings."""

from collections.abc import Mapping

from vqtrain.build import bind, final_class, unknown
from vqtrain.data.media import IMAGE, MEDIA
from vqtrain.data.settings.base import DataSettings
from vqtrain.errors import ConfigError


def bind_data(group: Mapping[str, object]) -> DataSettings:
    """Check the keys of ``data``.

    Raises:
        ConfigError: If there is no such kind, or a key is unknown, missing or invalid.
    """
    rest = dict(group)
    kind = str(rest.pop("kind", IMAGE.word))  # which runs did not say when there was no other
    if kind not in MEDIA:
        raise ConfigError(f"data.kind: {unknown('kind', kind, MEDIA)}")
    settings: type[DataSettings] = final_class(f"vqtrain.data.settings.{kind}", DataSettings)
    return bind(settings, rest, where="data")
