"""Requests for remote files (http, https, s3, gs, hf): listing, and bytes of a file.

Each process opens its own connections at its first request, because none survives a fork.
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b

from fsspec import AbstractFileSystem

from vqtrain.data.remote.parts import PART_BYTES, parts_limit
from vqtrain.data.remote.retry import TIMEOUT_S, ChangedError, one_line, retried
from vqtrain.data.remote.urls import HTTP, RemoteFile
from vqtrain.errors import DataError

# Keys of file systems that identify the content of a file; the first one present counts.
_TAGS = ("generation", "ETag", "blob_id", "xet_hash", "etag", "mtime", "LastModified")


def find(url: str) -> list[RemoteFile]:
    """Find a file, the files below a folder, or those that match a glob; sorted.

    Raises:
        DataError: If there is none, or the server refuses, does not answer or cannot list.
    """
    parts_limit()  # so that an invalid limit is reported now, not in a worker
    scheme, path = url.split("://", 1)
    try:
        if scheme in HTTP:
            if "*" in path or path.endswith("/"):
                raise DataError(
                    f"{url}: {scheme} cannot list files; write a brace list such as "
                    "shard-{00000..00099}.tar"
                )
            return [retried(url, lambda: _find_http(url), is_known=False)]
        return retried(url, lambda: _list(scheme, path), is_known=False)
    except FileNotFoundError:
        raise DataError(f"{url} does not exist") from None
    except PermissionError as error:
        raise DataError(f"no access to {url}: {one_line(error)}") from error


def read_small(url: str) -> bytes | None:
    """Read a whole small file that need not exist.

    Returns:
        Its bytes; None if it does not exist or access is denied, as buckets without listing reply.

    Raises:
        DataError: If the server does not answer.
    """
    scheme, path = url.split("://", 1)
    try:
        if scheme in HTTP:
            return retried(url, lambda: _get(url)[2], is_known=False)
        return retried(url, lambda: file_system(scheme, os.getpid()).cat_file(path), is_known=False)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return None


def fetch(file: RemoteFile, first: int, end: int) -> bytes:
    """Request the bytes from ``first`` up to ``end`` of a file, without a retry.

    Raises:
        ChangedError: If the file has changed since it was indexed.
        Exception: Any other error of the request.
    """
    scheme, path = file.url.split("://", 1)
    if scheme in HTTP:
        status, headers, content = _get(file.url, first, end)
        # 416: there are no such bytes. 200: the server ignores Range and sends the whole file.
        size = len(content) if status == 200 else _total(headers)
        content = content[first:end] if status == 200 else content
        if status == 416 or size != file.size or _http_tag(headers) != file.tag:
            raise ChangedError
    else:
        system = file_system(scheme, os.getpid())
        if file.revision:  # the content of a commit never changes
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


@cache
def file_system(scheme: str, _process: int) -> AbstractFileSystem:
    """Make the file system of a scheme, once in each process.

    Args:
        scheme: One of ``SCHEMES``.
        _process: Number of this process.
    """
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # errors are reported here, once
    options: dict[str, object] = {}
    if scheme in HTTP:
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
        system.retries = 1  # retries are made here
    return system


def _get(url: str, first: int = 0, end: int | None = None) -> tuple[int, Mapping[str, str], bytes]:
    """Request some bytes over http, or all.

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
                # Some servers ignore Range; then a small file is read completely.
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


def _find_http(url: str) -> RemoteFile:
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
    # The same folder, as the user named it and at one commit.
    named, pinned, commit = _pin(system, path) if scheme == "hf" else ("", "", "")
    target = pinned + path.removeprefix(named)
    if re.search(r"[*?\[]", target):
        found = dict(system.glob(target, detail=True))
    else:
        found = {target: system.info(target)}
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
    """Look it up once, so that all files of a run are from one commit."""
    from huggingface_hub import HfApi

    return str(HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision).sha)
