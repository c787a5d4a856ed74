"""URLs of files: which are remote, how an index stores them, and how they are shown."""

import os
import re
from dataclasses import dataclass
from typing import final

HTTP = ("http", "https")
SCHEMES = (*HTTP, "s3", "gs", "hf")


def is_url(path: str) -> bool:
    """Tell whether a path names a remote file."""
    return path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


@final
@dataclass(frozen=True)
class RemoteFile:
    """A remote file as it was when it was indexed.

    Attributes:
        url: As the user wrote it or as a listing gave it.
        size: Length in bytes.
        tag: Hash of the server's identification of the content; empty if there is none.
        revision: Commit of a Hugging Face repository; empty elsewhere.
    """

    url: str
    size: int
    tag: str
    revision: str = ""

    @property
    def name(self) -> str:
        """The URL without the query, which over http may hold a signature."""
        return self.url.partition("?")[0] if self.url.startswith("http") else self.url

    @property
    def text(self) -> str:
        """All of it in one URL, which is sent to the processes that read it."""
        return f"{self.url}#{self.size}-{self.tag}-{self.revision}"

    @staticmethod
    def parse(text: str) -> "RemoteFile":
        """Parse ``text``."""
        match = re.fullmatch(r"(.*)#(\d+)-([0-9a-f]*)-([0-9a-f]*)", text, re.DOTALL)
        assert match is not None, f"{text} is not from an index"
        return RemoteFile(match[1], int(match[2]), match[3], match[4])


def shown(path: str) -> str:
    """Name a file as its user knows it, without the facts that an index adds to its URL.

    Args:
        path: A path of an ``SampleIndex``.
    """
    return RemoteFile.parse(path).url if is_url(path) else path


def shareable(text: str) -> str:
    """Remove passwords from URLs, and write the home folder as ``~``.

    Example:
        >>> shareable("https://me:secret@host/a.tar")
        'https://host/a.tar'
    """
    text = re.sub(r"(?<=://)[^/@\s\"']*@", "", text)
    home = os.path.expanduser("~")  # noqa: PTH111 - Path raises where there is none
    if len(home) > 1:
        text = re.sub(rf"(?<![\w./~-]){re.escape(home)}(?=[/\s\"',\]]|$)", "~", text)
    return text
