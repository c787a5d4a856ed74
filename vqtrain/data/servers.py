"""Servers of files (http, https, s3, gs, hf): what they hold, some bytes of it, and patience.

Each process makes its own connections at its first request: none survives a fork.
"""

import logging
import math
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from random import SystemRandom
from typing import TypeVar, final

from fsspec import AbstractFileSystem

from vqtrain.data.cache import PART_BYTES, parts_limit
from vqtrain.errors import DataError, VqtrainError

SCHEMES = ("http", "https", "s3", "gs", "hf")
_HTTP = ("http", "https")

# A server that does not answer at all in this time is asked again.
TIMEOUT_S = 60.0
# Waits between requests, doubled each time, and how long a server is asked in all.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
PATIENCE_S = 300.0
# The same before a run has begun, when a wrong name or port is likelier than an outage.
FIRST_PATIENCE_S = 30.0
# A process speaks of its waiting at most once in this time.
NOTICE_S = 300.0

# What tells one content from another, as the file systems name it; the first that is there counts.
_TAGS = ("generation", "ETag", "blob_id", "xet_hash", "etag", "mtime", "LastModified")

# Asking again would not help: a wrong name, no access, a mistake in a setting or in a program.
_LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError),
    *(ValueError, TypeError, AttributeError, LookupError, AssertionError, VqtrainError),
)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")

_Answer = TypeVar("_Answer")
_last_notice_s = -NOTICE_S


class ChangedError(Exception):
    """A file on a server is not the one that was indexed."""


@final
@dataclass(frozen=True)
class RemoteFile:
    """A file on a server as it was when it was indexed.

    Attributes:
        url: As the user wrote it or as a listing gave it.
        size: Length in bytes.
        tag: Hash of what its server says of the content; empty if it says nothing.
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
        """All of it in one URL, by which it travels to the processes that read it."""
        return f"{self.url}#{self.size}-{self.tag}-{self.revision}"

    @staticmethod
    def parse(text: str) -> "RemoteFile":
        """Read what ``text`` wrote."""
        match = re.fullmatch(r"(.*)#(\d+)-([0-9a-f]*)-([0-9a-f]*)", text, re.DOTALL)
        assert match is not None, f"{text} was never indexed"
        return RemoteFile(match[1], int(match[2]), match[3], match[4])


def find(url: str) -> list[RemoteFile]:
    """Find a file, the files below a folder, or those that match a glob; sorted.

    Raises:
        DataError: If there is none, the server refuses or does not answer, or cannot list.
    """
    parts_limit()  # a mistake in it is said now, and not in a process that reads
    scheme, path = url.split("://", 1)
    try:
        if scheme in _HTTP:
            if "*" in path or path.endswith("/"):
                raise DataError(
                    f"{url}: {scheme} cannot list files; write a brace list such as "
                    "shard-{00000..00099}.tar"
                )
            return [ask(url, lambda: _look_over_http(url), is_known=False)]
        return ask(url, lambda: _list(scheme, path), is_known=False)
    except FileNotFoundError:
        raise DataError(f"{url} does not exist") from None
    except PermissionError as error:
        raise DataError(f"no access to {url}: {one_line(error)}") from error


def read_small(url: str) -> bytes | None:
    """Read a whole small file that need not exist.

    Returns:
        Its bytes; None if it is not there or, as buckets without listing say it, forbidden.

    Raises:
        DataError: If the server does not answer.
    """
    scheme, path = url.split("://", 1)
    try:
        if scheme in _HTTP:
            return ask(url, lambda: _get(url)[2], is_known=False)
        return ask(url, lambda: file_system(scheme, os.getpid()).cat_file(path), is_known=False)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return None


def fetch(file: RemoteFile, first: int, end: int) -> bytes:
    """Ask a server once for the bytes from ``first`` up to ``end`` of a file.

    Raises:
        ChangedError: If the file there is another than the one that was indexed.
        Exception: Whatever goes wrong.
    """
    scheme, path = file.url.split("://", 1)
    if scheme in _HTTP:
        status, headers, content = _get(file.url, first, end)
        # 416: it has no such bytes. 200: it gives the whole file, whatever it is asked for.
        size = len(content) if status == 200 else _total(headers)
        content = content[first:end] if status == 200 else content
        if status == 416 or size != file.size or _http_tag(headers) != file.tag:
            raise ChangedError
    else:
        system = file_system(scheme, os.getpid())
        if file.revision:  # what a commit holds never changes
            named, pinned, _ = _pin(system, path, file.revision)
            content = system.cat_file(pinned + path.removeprefix(named), start=first, end=end)
        else:
            content = system.cat_file(path, start=first, end=end)
            found = system.info(path, refresh=True)
            if (found["size"], _tag(found)) != (file.size, file.tag):
                raise ChangedError
    if len(content) != end - first:
        raise ConnectionError("the answer was cut off")
    return content


def ask(url: str, request: Callable[[], _Answer], *, is_known: bool) -> _Answer:
    """Make a request again until it is answered, with growing waits, for about 5 minutes.

    Args:
        url: What is asked for.
        request: Asks once.
        is_known: Whether this server has answered before; otherwise it is asked for 30 seconds, and
            a name that nobody knows is taken for a slip of the pen.

    Raises:
        DataError: If the server does not answer all that time.
        Exception: What ``request`` raises, if asking again would not help.
    """
    began_s, patience_s = time.monotonic(), PATIENCE_S if is_known else FIRST_PATIENCE_S
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return request()
        except Exception as error:
            _raise_if_lasting(url, error, is_known=is_known)
            if time.monotonic() - began_s >= patience_s:
                raise DataError(
                    f"the server of {url} does not answer: {one_line(error)}; "
                    f"asked for {patience_s:.0f} s"
                ) from error
            _notify(url, error, patience_s)
        time.sleep(wait_s * SystemRandom().uniform(0.5, 1.0))  # not all processes at once
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def one_line(error: BaseException) -> str:
    """Say in one line what an error is about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _raise_if_lasting(url: str, error: Exception, *, is_known: bool) -> None:
    if isinstance(error, ImportError):
        scheme = url.split("://", 1)[0]
        raise DataError(f'{scheme}:// needs: pip install "vqtrain[remote]"') from error
    if type(error).__name__ in _NO_CREDENTIALS:
        raise DataError(
            f"no credentials to read {url}: {one_line(error)} "
            "(for a public bucket set FSSPEC_S3_ANON=true)"
        ) from error
    if isinstance(error, (*_LASTING, ChangedError)):
        raise error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        raise PermissionError(one_line(error)) from error
    if not is_known and _is_unknown_name(error):
        raise DataError(f"cannot find the server of {url}: {one_line(error)}") from error


def _is_unknown_name(error: BaseException | None) -> bool:
    """Tell whether a server's name led nowhere, however deep that lies."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def _notify(url: str, error: Exception, patience_s: float) -> None:
    global _last_notice_s  # noqa: PLW0603 - one notice a process
    if time.monotonic() - _last_notice_s >= NOTICE_S:
        _last_notice_s = time.monotonic()
        sys.stderr.write(
            f"{url} cannot be read: {one_line(error)}; trying again for up to {patience_s:.0f} s\n"
        )


@cache
def file_system(scheme: str, _process: int) -> AbstractFileSystem:
    """Make the file system of a scheme, once in each process.

    Args:
        scheme: One of ``SCHEMES``.
        _process: Number of this process.
    """
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what goes wrong is said here, once
    options: dict[str, object] = {}
    if scheme in _HTTP:
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=10 * TIMEOUT_S, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S
        )
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    elif scheme == "s3":
        times = {"connect_timeout": TIMEOUT_S, "read_timeout": TIMEOUT_S}
        config = {**times, "retries": {"total_max_attempts": 1}}
        options = {"config_kwargs": config, "use_listings_cache": False}
    elif scheme == "gs":
        options = {"requests_timeout": TIMEOUT_S, "use_listings_cache": False}
    system = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    if scheme == "s3":
        system.retries = 1  # as often as is right is known here
    return system


def _get(url: str, first: int = 0, end: int | None = None) -> tuple[int, Mapping[str, str], bytes]:
    """Ask over http for some bytes, or for all.

    Returns:
        The status (200: the whole file, 206: the bytes, 416: there are none), headers and content.
    """
    from fsspec.asyn import sync

    system = file_system("http", os.getpid())
    headers = {"Accept-Encoding": "identity"}
    if end is not None:
        headers["Range"] = f"bytes={first}-{end - 1}"

    async def get() -> tuple[int, Mapping[str, str], bytes]:
        session = await system.set_session()
        async with session.get(system.encode_url(url), headers=headers) as answer:
            _raise_for_status(url, answer.status, answer.reason)
            length = math.inf if answer.content_length is None else answer.content_length
            if answer.status == 200 and end is not None and length > PART_BYTES:
                # Some servers know no parts of files. What is small is then taken whole.
                raise DataError(f"{url} cannot be read: its server ignores Range requests")
            content = await answer.read() if answer.status != 416 else b""
            return answer.status, answer.headers, content

    return sync(system.loop, get)


def _raise_for_status(url: str, status: int, reason: str) -> None:
    if status in (404, 410):
        raise FileNotFoundError(url)
    if status in (408, 425, 429) or status >= 500:
        raise ConnectionError(f"the server answers {status} {reason}")
    if status not in (200, 206, 416):
        raise PermissionError(f"the server answers {status} {reason}")


def _look_over_http(url: str) -> RemoteFile:
    # A request for a byte, not HEAD: it also works where a signature allows GET alone, and it
    # shows whether the server can send parts of files.
    status, headers, content = _get(url, 0, 1)
    size = len(content) if status == 200 else _total(headers)
    return RemoteFile(url, size, _http_tag(headers))


def _total(headers: Mapping[str, str]) -> int:
    """Read the length of the whole file from ``bytes 0-0/123``."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if not total.isdigit():
        raise DataError("a server does not say how long its file is")
    return int(total)


def _http_tag(headers: Mapping[str, str]) -> str:
    return _hash(headers.get("ETag") or headers.get("Last-Modified") or "")


def _tag(info: Mapping[str, object]) -> str:
    return _hash(next((str(info[name]) for name in _TAGS if info.get(name)), ""))


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest() if text else ""


def _list(scheme: str, path: str) -> list[RemoteFile]:
    system = file_system(scheme, os.getpid())
    # The same place, as the user named it and at one commit.
    named, pinned, commit = _pin(system, path) if scheme == "hf" else ("", "", "")
    place = pinned + path.removeprefix(named)
    if re.search(r"[*?\[]", place):
        found = dict(system.glob(place, detail=True))
    else:
        found = {place: system.info(place)}
    for name, info in list(found.items()):
        if info["type"] == "directory":
            found.update(system.find(name, detail=True))
    return [
        RemoteFile(
            f"{scheme}://{named}{name.removeprefix(pinned)}", info["size"], _tag(info), commit
        )
        for name, info in sorted(found.items())
        if info["type"] == "file"
    ]


def _pin(system: AbstractFileSystem, path: str, commit: str = "") -> tuple[str, str, str]:
    """Find the Hugging Face repository that a path begins with.

    Returns:
        The repository as the path names it, the same at a commit (without one, the newest), and
        the commit. All are empty for a bucket, which has no commits.
    """
    from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES

    resolved = system.resolve_path(path)
    if not hasattr(resolved, "repo_id"):
        return "", "", ""
    kind, name = resolved.repo_type, resolved.repo_id
    commit = commit or _newest_commit(kind, name, resolved.revision)
    named = path.rstrip("/").removesuffix(resolved.path_in_repo).rstrip("/")
    return named, f"{REPO_TYPES_URL_PREFIXES.get(kind, '')}{name}@{commit}", commit


@cache
def _newest_commit(repo_type: str, repo_id: str, revision: str) -> str:
    """Ask for it once, so that all files of a run are of one commit."""
    from huggingface_hub import HfApi

    return str(HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision).sha)


def shareable(text: str) -> str:
    """Leave out what is nobody's business: passwords in URLs, and the home folder, which is ``~``.

    Example:
        >>> shareable("https://me:secret@host/a.tar")
        'https://host/a.tar'
    """
    text = re.sub(r"(?<=://)[^/@\s\"']*@", "", text)
    home = os.path.expanduser("~")  # noqa: PTH111 - Path raises where there is none
    if len(home) > 1:
        text = re.sub(rf"(?<![\w./~-]){re.escape(home)}(?=[/\s\"',\]]|$)", "~", text)
    return text
