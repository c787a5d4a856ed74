"""A folder of shards: its command, its writers, its plan, and its index.json at the end."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from filelock import FileLock, Timeout

from vqtrain.data.cache import write_whole
from vqtrain.data.shards.writer import FileEntry
from vqtrain.errors import ConfigError, DataError, FailedError, require

INDEX, PLAN, _LOCK = "index.json", "plan.json", "lock"

# What files are built from, as plain data: format, version, settings, images, and a tokenizer.
Identity = Mapping[str, Any]

# What is being written, images done so far, total number of images.
Progress = Callable[[str, int, int], None]

_Begun = TypeVar("_Begun")


@final
@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of one process among several: shards number, number + of, number + 2 of, ...

    Attributes:
        number: In [0, of).
        of: Processes.

    Raises:
        ConfigError: If the part is invalid.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Refuse an invalid part."""
        require(
            0 <= self.number < self.of,
            f"share must be r/n with r from 0 to n - 1, such as 0/4, got {self}",
        )

    def __str__(self) -> str:
        """Write it as a user types it."""
        return f"{self.number}/{self.of}"


ALL = Share(number=0, of=1)


def read_share(text: str) -> Share:
    """Read ``r/n``.

    Raises:
        ConfigError: If it is something else.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        raise ConfigError(f"share must be r/n, such as 0/4, got {text!r}")
    return Share(number=int(number), of=int(of))


@final
@dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """A folder that one command writes, in one process or several, and continues after a kill.

    Attributes:
        out: The folder; it need not exist.
        command: The command, such as ``vqtrain pack``.
        content: Its content in words, such as ``a pack``.
        unfinished: Name of the inner folder for incomplete files.
        files: Pattern of the names of its files.
        folders: Inner folders that hold some of them.
        identity: What the files are built from; they are continued only with the same identity.
    """

    out: Path
    command: str
    content: str
    unfinished: str
    files: str
    identity: Identity
    folders: tuple[str, ...] = ()

    @property
    def state(self) -> Path:
        """The inner folder for incomplete files."""
        return self.out / self.unfinished

    @property
    def has_begun(self) -> bool:
        """Whether ``begin`` was called before."""
        return (self.state / PLAN).is_file()

    def read_complete(self) -> dict[str, Any] | None:
        """Return the index.json of a complete folder, or None if it is incomplete.

        Raises:
            ConfigError: If it holds something else, or has another identity.
            DataError: If a file is missing.
        """
        if (self.out / INDEX).is_file():
            found: object = None
            with suppress(DataError):
                found = read_json(self.out / INDEX)
            if not isinstance(found, dict) or found.get("format") != self.identity["format"]:
                raise self._not_mine(INDEX)
            self.check_same(found)
            check_files(self.out, listed_files(found))
            shutil.rmtree(self.state, ignore_errors=True)  # after a kill it may still exist
            return found
        if self.out.is_dir():
            foreign = next(self._foreign(), None)
            if foreign is not None:
                if (self.out / INDEX).is_file():  # another process has just completed it
                    return self.read_complete()
                raise self._not_mine(foreign)
        return None

    def begin(self, **decided: object) -> dict[str, Any]:
        """Write the identity and decisions, or read those of an earlier call.

        Raises:
            ConfigError: If the folder was begun with another identity.
        """
        file = self.state / PLAN
        if not self.has_begun:
            write_whole(file, json.dumps({**self.identity, **decided}).encode())
        begun = read_json(file)
        assert isinstance(begun, dict), "it was written here"
        self.check_same(begun)
        return begun

    @contextmanager
    def claimed(self, share: Share, begin: Callable[[], _Begun]) -> Iterator[_Begun]:
        """Lock the shards of a share.

        All active processes must have shares with the same number of parts.

        Args:
            share: The part of this process.
            begin: Called under the lock, before any other process can begin or complete the
                folder; its result is that of the context.

        Raises:
            ConfigError: If another process has some of the shards, or the folder cannot be written.
        """
        is_new = not self.out.exists()
        try:
            self.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write out={self.out}: {error.strerror}") from error
        mine = FileLock(self.state / f"share-{share.number}-of-{share.of}")
        try:
            with self.locked():
                self._refuse_others(share)
                with suppress(NotImplementedError):  # no locks on that disk
                    mine.acquire()
                begun = begin()
            yield begun
        finally:
            mine.release()
            if not self.has_begun:
                self._leave_nothing(mine, with_folder=is_new)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, so that only one process begins or completes it at a time."""
        lock = FileLock(self.state / _LOCK)
        with suppress(NotImplementedError):  # no locks on that disk
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn errors of the disk into one-line errors.

        Raises:
            FailedError: If the folder cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise FailedError(
                f"cannot write {error.filename or self.out}: {error.strerror}; what is written is "
                "kept, run the same command again to continue"
            ) from error

    def complete(self, report: Mapping[str, object]) -> None:
        """Write index.json, which marks the folder as complete, and remove the state."""
        write_whole(self.state / INDEX, json.dumps(report, indent=1).encode())
        (self.state / INDEX).replace(self.out / INDEX)
        shutil.rmtree(self.state, ignore_errors=True)  # another process may be leaving it, too

    def check_same(self, begun: Identity) -> None:
        """Refuse to continue a folder with another identity.

        Raises:
            ConfigError: Naming the first difference.
        """
        what, now = f"out={self.out} holds {self.content}", self.identity
        if begun["version"] != now["version"]:
            raise ConfigError(
                f"{what} of version {begun['version']}, and this is version {now['version']}"
            )
        if begun.get("tokenizer") != now.get("tokenizer"):
            raise ConfigError(f"{what} of another tokenizer: give that tokenizer, or another out")
        for key, value in now["settings"].items():
            before = begun["settings"].get(key)
            if before != value:
                raise ConfigError(
                    f"{what} with {key}={_typed(before)}, not {_typed(value)}: give "
                    f"{key}={_typed(before)}, or another out"
                )
        count, count_now = begun["images"]["count"], now["images"]["count"]
        if count != count_now:
            raise ConfigError(
                f"{what} of {count} images, now there are {count_now}: give another out"
            )
        if begun["images"] != now["images"]:
            raise ConfigError(
                f"{what} of other images, or of some that have changed: their names, sizes, order "
                "or fields differ; give another out"
            )

    def _foreign(self) -> Iterator[str]:
        """List files that the command would not have written, or not yet."""
        for path in sorted(self.out.iterdir()):
            is_folder = path.name in self.folders and path.is_dir()
            for file in sorted(path.iterdir()) if is_folder else [path]:
                name = file.relative_to(self.out).as_posix()
                is_mine = name == self.unfinished or (
                    self.has_begun and re.fullmatch(self.files, name) is not None
                )
                if not is_mine:
                    yield name

    def _not_mine(self, name: str) -> ConfigError:
        return ConfigError(
            f"out={self.out} holds {name}, which is not of {self.command}: give another folder"
        )

    def _refuse_others(self, share: Share) -> None:
        """Refuse to run at the same time as a process that has some of the same shards."""
        for path in sorted(self.state.glob("share-*-of-*")):
            number, of = map(int, path.name.removeprefix("share-").split("-of-"))
            if of == share.of and number != share.number:
                continue
            try:
                with suppress(NotImplementedError), FileLock(path, blocking=False):
                    pass
            except Timeout:
                other = Share(number=number, of=of)
                which = "" if other == ALL else f", of share={other}, with shards of share={share}"
                raise ConfigError(
                    f"out={self.out} is being written by another {self.command}{which}"
                ) from None

    def _leave_nothing(self, mine: FileLock, *, with_folder: bool) -> None:
        """Remove the new folders of a command that was refused."""
        with suppress(OSError):
            for path in (Path(mine.lock_file), self.state / _LOCK):
                path.unlink(missing_ok=True)
            self.state.rmdir()
            if with_folder:
                self.out.rmdir()


def listed_files(report: Mapping[str, Any]) -> list[FileEntry]:
    """List the files that an index.json names, whether of a pack or of tokens."""
    if "files" in report:
        return list(report["files"])
    return [entry for side in ("train", "val") for entry in report[side]["shards"]]


def check_files(out: Path, files: Sequence[FileEntry]) -> None:
    """Refuse a folder with missing or changed files.

    Raises:
        DataError: If a file is missing or has another length.
    """
    for entry in files:
        file = out / entry["name"]
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise DataError(
                f"{file} is missing or has changed since it was written: delete {out}, and give "
                "the command again"
            )


def read_json(file: Path) -> object:
    """Read a JSON file of the folder.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; delete it and begin again") from error


def _typed(value: object) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
