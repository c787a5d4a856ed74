"""What samples are of: images, video or sound."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import final

from vqtrain.errors import ConfigError
from vqtrain.ranges import nearest

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"\x93NUMPY")
_SOUNDS = (b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_MATROSKA = b"\x1a\x45\xdf\xa3"


@final
@dataclass(frozen=True, kw_only=True)
class Media:
    """A kind of samples, and how its files are known.

    Attributes:
        word: The kind of ``data``: ``image``, ``video`` or ``sound``.
        noun: One of its samples, for people.
        key: The key of commands and of sources with a weight that names its files.
        axes: Axes of a sample besides its channels.
        suffixes: Of its files, in lower case.
        begins: Says whether the first 12 bytes of a file are those of one of its files.
    """

    word: str
    noun: str
    key: str
    axes: int
    suffixes: frozenset[str]
    begins: Callable[[bytes], bool]

    def owns(self, name: str | PurePath) -> bool:
        """Tell by its suffix whether a file is one of its samples.

        Example:
            >>> IMAGE.owns("a/cat.JPG"), VIDEO.owns("a/cat.JPG"), SOUND.owns("bell.flac")
            (True, False, True)
        """
        return PurePath(name).suffix.lower() in self.suffixes


def _is_image(beginning: bytes) -> bool:
    is_webp = beginning.startswith(b"RIFF") and beginning.endswith(b"WEBP")
    return is_webp or beginning.startswith(_IMAGES)


def _is_video(beginning: bytes) -> bool:
    is_avi = beginning.startswith(b"RIFF") and beginning.endswith(b"AVI ")
    return is_avi or beginning[4:8] == b"ftyp" or beginning.startswith((_MATROSKA, b"GIF8"))


def _is_sound(beginning: bytes) -> bool:
    is_wav = beginning.startswith(b"RIFF") and beginning.endswith(b"WAVE")
    return is_wav or beginning.startswith(_SOUNDS)


IMAGE = Media(
    word="image",
    noun="image",
    key="images",
    axes=2,
    suffixes=frozenset(
        (
            *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif"),
            *(".tiff", ".webp"),
        )
    ),
    begins=_is_image,
)
VIDEO = Media(
    word="video",
    noun="clip",
    key="videos",
    axes=3,
    suffixes=frozenset((".avi", ".frames", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")),
    begins=_is_video,
)
SOUND = Media(
    word="sound",
    noun="sound",
    key="sounds",
    axes=1,
    suffixes=frozenset((".flac", ".mp3", ".ogg", ".wav")),
    begins=_is_sound,
)
ALL = (IMAGE, VIDEO, SOUND)
MEDIA = {media.word: media for media in ALL}


def media_of(axes: int) -> Media:
    """Return what samples of some axes are of.

    Raises:
        ConfigError: If there are no files of such samples.

    Example:
        >>> media_of(3).noun
        'clip'
    """
    for media in ALL:
        if media.axes == axes:
            return media
    raise ConfigError(f"samples of {axes} axes come from no files: use the Python interface")


def media_in(group: Mapping[str, object]) -> Media:
    """Return what the samples of a group ``data`` are of, which the oldest runs do not say.

    Raises:
        ConfigError: If there is no such kind.
    """
    kind = str(group.get("kind", IMAGE.word))
    if kind not in MEDIA:
        near = nearest(kind, MEDIA)
        hint = f", did you mean {near!r}?" if near else f", valid are: {', '.join(MEDIA)}"
        raise ConfigError(f"data.kind: unknown kind {kind!r}{hint}")
    return MEDIA[kind]
