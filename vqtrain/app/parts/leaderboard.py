"""From a list of tokenizers to rows, each measured once by a command line, and to their site."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, final

from rich.console import Console

from vqtrain.app.evaluate import Evaluate, metrics_of
from vqtrain.app.parts.keys import arguments_of, read_values
from vqtrain.app.parts.listing import ListedTokenizer, Listing, Protocol, typed
from vqtrain.app.parts.output import claimed
from vqtrain.app.parts.pages import page_of
from vqtrain.app.parts.probes.folder import LOGS
from vqtrain.app.parts.sources import check_media
from vqtrain.app.tokenize import hash_of
from vqtrain.data.media import IMAGE
from vqtrain.data.remote.urls import shareable
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import FailedError, Interrupted, VqtrainError
from vqtrain.evaluation.leaderboard import (
    DIGITS,
    FAILED,
    MEASURED,
    WAITING,
    Board,
    Network,
    Row,
    ranked,
    row_key,
    show,
)
from vqtrain.evaluation.models import load_metrics
from vqtrain.evaluation.reference import content_digest
from vqtrain.evaluation.results import read_evaluation
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.launchers.base import Ended, Job
from vqtrain.launchers.local import Local
from vqtrain.ops.paths import expand
from vqtrain.reports.site import PAGE, write_site
from vqtrain.tokenizer.model import Tokenizer

ROWS, CONVERTED, UNFINISHED = "rows", "converted", ".part"
# What a URL says after its path, which may be a signature.
QUERY = re.compile(r"(https?://[^\s\"'?]*)\?[^\s\"']*")


@final
@dataclass(frozen=True, kw_only=True)
class Machine:
    """How rows are measured here.

    Attributes:
        allow: Packages outside vqtrain whose classes the tokenizers may name.
        device: A word.
        batch_size: Images at once.
        num_workers: Processes that load images; None is one for each core.
        devices: Processes that measure one tokenizer.
    """

    allow: Sequence[str]
    device: str
    batch_size: int
    num_workers: int | None
    devices: int

    @property
    def deciding(self) -> list[str]:
        """The words on which figures may depend, of speed at least."""
        return [f"device={find_device(self.device).type}", f"batch_size={self.batch_size}"]

    @property
    def words(self) -> list[str]:
        """All words."""
        return [
            *self.deciding,
            *([f"allow=[{','.join(self.allow)}]"] if self.allow else []),
            *([] if self.num_workers is None else [f"num_workers={self.num_workers}"]),
            f"devices={self.devices}",
        ]


def check_protocol(protocol: Protocol, machine: Machine) -> None:
    """Refuse what ``vqtrain evaluate`` would refuse, before anything starts.

    Raises:
        ConfigError: If a value is wrong.
        WeightsError: If weights of a metric cannot be had.
    """
    words = ["tokenizer=x", *protocol.words, *machine.words]
    values = read_values(page_of("evaluate"), words)
    found: dict[str, Any] = arguments_of(Evaluate().run, values, {"words": []})
    options = found["options"]
    SampleSettings(
        image_size=protocol.image_size,
        crop=protocol.crop or "resize",
        batch_size=machine.batch_size,
        num_workers=machine.num_workers,
        device=machine.device,
        precision=found["precision"],
    )
    metrics = metrics_of(options, IMAGE)
    load_metrics(metrics, given=options.weights, device=find_device("cpu"), is_typed=True)


def build(
    listing: Listing, folder: Path, machine: Machine, index: SampleIndex, console: Console
) -> int:
    """Measure what is to be measured, and write the site after each row.

    Returns:
        0, or 1 if a tokenizer has no figures.
    """
    protocol = listing.protocol
    console.print(f"{'images':<12}{len(index):,} of {public(str(protocol.images))}", markup=False)
    board = Leaderboard(listing, folder, machine, index)
    with claimed(folder, "leaderboard"):
        (folder / ROWS).mkdir(exist_ok=True)
        for unfinished in folder.glob(f"*/*{UNFINISHED}"):
            shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for place, listed in enumerate(listing.tokenizers, start=1):
                row = board.find(listed)
                if row.state == WAITING:
                    log = folder / LOGS / f"{row.key}.log"
                    said = f"{row.name}: measuring, {place} of {len(listing.tokenizers)}, see {log}"
                    console.print(said, markup=False)
                    row = board.measure(listed, row)
                    said = ": ".join(filter(None, [row.name, row.state, row.reason]))
                    console.print(said, markup=False)
                elif row.state == MEASURED:
                    console.print(f"{row.name}: was measured before", markup=False)
                board.publish(row)
        except (KeyboardInterrupt, Interrupted):
            console.print("stopped: run the same command again to continue")
            raise
    show(board.result, console)
    console.print(f"{'written':<12}{folder / PAGE}", markup=False)
    return 0 if len(board.result.measured) == len(listing.tokenizers) else 1


@final
class Leaderboard:
    """The rows of a list, those that were measured before among them.

    Args:
        listing: The list.
        folder: Of the site and of the rows.
        machine: How rows are measured here.
        index: The images.
    """

    def __init__(
        self, listing: Listing, folder: Path, machine: Machine, index: SampleIndex
    ) -> None:
        self._listing, self._folder, self._machine = listing, folder, machine
        protocol = listing.protocol
        # Which ones are the first is by their order, which the content does not tell.
        digests = f"{content_digest(index)}-{index.digest}"
        self._images = sha256(digests.encode()).hexdigest()
        self._words = [*protocol.words, f"first={protocol.pictures}", "worst=0"]
        self._rows = {
            each.shown: Row(name=each.shown, note=each.note, command=command_of(each, protocol))
            for each in listing.tokenizers
        }
        self._source = {
            "source": public(str(protocol.images)),
            "count": len(index),
            "digest": self._images,
        }

    @property
    def result(self) -> Board:
        """All rows as they are now."""
        protocol = asdict(self._listing.protocol)
        shown = {key: value for key, value in protocol.items() if value not in (None, {})}
        del shown["images"], shown["pictures"]
        return Board(
            title=self._listing.title,
            images=self._source,
            protocol={key: public(typed(value)) for key, value in shown.items()},
            rows=ranked([*self._rows.values()]),
        )

    def find(self, listed: ListedTokenizer) -> Row:
        """Read a tokenizer, which is converted first if need be, and its figures if it has some."""
        row = self._rows[listed.shown]
        try:
            path = self._converted(listed) if listed.kind else listed.path
            tokenizer = Tokenizer.from_pretrained(path, allow=self._machine.allow)
            check_media(IMAGE, tokenizer, listed.path)
            network, own = Network.of(tokenizer), hash_of(tokenizer)
        except (VqtrainError, OSError) as error:
            return replace(row, state=FAILED, reason=public(str(error)))
        words = [*listed.evaluate_words("")[2:], *self._words, *self._machine.deciding]
        row = replace(row, tokenizer=own, network=network, key=row_key(own, self._images, words))
        return self._with_figures(row) if self._place(row).is_dir() else row

    def measure(self, listed: ListedTokenizer, row: Row) -> Row:
        """Measure a tokenizer in a process of its own."""
        path = self._converted_place(listed) if listed.kind else listed.path
        words = [*listed.evaluate_words(path), *self._words, *self._machine.words]
        ended = self._run(words, self._place(row))
        if ended.code:
            return replace(row, state=FAILED, reason=public(ended.reason))
        return self._with_figures(row)

    def publish(self, row: Row) -> None:
        """Take a row over, and write the site."""
        self._rows[row.name] = row
        write_site(self.result, self._folder, rows=self._folder / ROWS)

    def _place(self, row: Row) -> Path:
        return self._folder / ROWS / row.key

    def _with_figures(self, row: Row) -> Row:
        (found,) = read_evaluation(self._place(row)).tokenizers
        return replace(row, state=MEASURED, result=found)

    def _converted(self, listed: ListedTokenizer) -> Path:
        """Convert a checkpoint, if it has not changed since it was converted.

        Raises:
            FailedError: If it cannot be converted.
        """
        place = self._converted_place(listed)
        if not place.is_dir():
            ended = self._run(listed.convert_words, place)
            if ended.code:
                raise FailedError(ended.reason)
        return place

    def _converted_place(self, listed: ListedTokenizer) -> Path:
        source = expand(listed.path)
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        states = [(file.name, file.stat()) for file in files if file.is_file()]
        known = [listed.convert_words, [(name, s.st_size, s.st_mtime_ns) for name, s in states]]
        return self._folder / CONVERTED / sha256(json.dumps(known).encode()).hexdigest()[:DIGITS]

    def _run(self, words: Sequence[str], place: Path) -> Ended:
        """Run a command line whose folder is there only if all went well."""
        devices, found = self._machine.devices, list[Ended]()
        unfinished = place.with_name(f"{place.name}.{os.getpid()}{UNFINISHED}")
        try:
            Local(processes=devices).launch(
                [Job(name=place.name, commands=[[*words, f"out={unfinished}"]], devices=devices)],
                logs=self._folder / LOGS,
                tick=lambda: None,
                done=lambda _, ended: found.append(ended),
            )
            if found[0].code == 0:
                unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return found[0]


def command_of(listed: ListedTokenizer, protocol: Protocol) -> str:
    """Write the command line that gives the figures of a row to anybody."""
    folder = re.sub(r"[^\w.-]+", "-", listed.shown).strip("-.") or "tokenizer"
    commands = []
    path = listed.path
    if listed.convert_words:
        path = folder
        commands.append([*listed.convert_words, f"out={folder}"])
    words = [*listed.evaluate_words(path), *protocol.words, f"out={folder}-figures"]
    lines = [shlex.join(["vqtrain", *command]) for command in [*commands, words]]
    return public(" && ".join(lines))


def public(text: str) -> str:
    """Remove from a text what is not for others: passwords, signatures, folders of this machine."""
    return QUERY.sub(r"\1", shareable(text.replace(f"{Path.cwd()}/", "")))
