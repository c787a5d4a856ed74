"""The keys that name samples: ``images``, ``videos`` and ``sounds``, one for each media."""

from dataclasses import dataclass
from typing import final

from vqtrain.data.media import ALL, Media, media_of
from vqtrain.errors import require
from vqtrain.tokenizer.model import Tokenizer

Named = str | list[str | dict[str, object]]


@final
@dataclass(frozen=True, kw_only=True)
class SampleSources:
    """What names the samples of a command; its fields are keys."""

    images: Named | None
    videos: Named | None
    sounds: Named | None

    @property
    def given(self) -> list[Media]:
        """The media whose keys were typed."""
        return [media for media in ALL if getattr(self, media.key) not in (None, "")]

    def named(self, command: str) -> tuple[Named, Media]:
        """Return the one source that was typed, and its media.

        Args:
            command: What to type, for messages, such as ``vqtrain pack images=IMAGES``.

        Raises:
            ConfigError: If it is none, or several.
        """
        given = self.given
        keys = [media.key for media in given]
        require(bool(keys), f"name the images: {command}, or videos=VIDEOS or sounds=SOUNDS")
        require(len(keys) < 2, f"{' and '.join(keys)} are of several media: give one of them")
        source: Named = getattr(self, *keys)
        return source, given[0]


def check_media(media: Media, tokenizer: Tokenizer, name: str) -> None:
    """Refuse samples that a tokenizer does not take.

    Args:
        media: What they are of.
        tokenizer: The tokenizer.
        name: As the user typed it.

    Raises:
        ConfigError: If it takes others.
    """
    own = media_of(len(tokenizer.downsampling))
    require(
        own is media,
        f"tokenizer={name} takes {own.noun}s: give {own.key}={own.key.upper()} instead of "
        f"{media.key}",
    )
