"""A leaderboard: tokenizers that were measured under one protocol, and the key of each."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

from rich.console import Console
from rich.table import Table

from vqtrain.data.cache import write_whole
from vqtrain.evaluation.results import TokenizerResult
from vqtrain.evaluation.tables import DECIMALS, MISSING
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.version import __version__

FILE = "leaderboard.json"
FORMAT, VERSION = "vqtrain-leaderboard", 1
# Of a hash in names of files, enough to tell all rows apart.
DIGITS = 16
MEASURED, FAILED, WAITING = "measured", "failed", "waiting"


@final
@dataclass(frozen=True, kw_only=True)
class Network:
    """What a tokenizer is made of.

    Attributes:
        encoder: The kind word of its encoder, as those below.
        codebook: Of its codebook.
        decoder: Of its decoder.
        downsampling: Pixels for each latent, along height and width.
        vocabulary: Ids of each codebook; None of a continuous one.
        num_codebooks: Ids for each latent; 0 of a continuous codebook.
    """

    encoder: str
    codebook: str
    decoder: str
    downsampling: Sequence[int]
    vocabulary: int | None
    num_codebooks: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Network":
        """Describe a tokenizer."""
        kinds = {part: str(spec["kind"]) for part, spec in tokenizer.specification.items()}
        count = tokenizer.codebook.num_codebooks
        return cls(
            encoder=kinds["encoder"],
            codebook=kinds["codebook"],
            decoder=kinds["decoder"],
            downsampling=tokenizer.downsampling,
            vocabulary=tokenizer.vocab_size if count else None,
            num_codebooks=count,
        )


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """A tokenizer of a leaderboard.

    Attributes:
        name: Its name there.
        note: What its list says of it.
        command: The command line that measures it, without passwords.
        tokenizer: The sha256 of its modules and weights; empty if it could not be read.
        key: What its figures are kept by: that of the tokenizer, the images and the protocol.
        network: What it is made of; None if it could not be read.
        state: ``measured``, ``failed`` or ``waiting``.
        reason: Why it failed.
        result: What was measured.
    """

    name: str
    note: str
    command: str
    tokenizer: str = ""
    key: str = ""
    network: Network | None = None
    state: str = WAITING
    reason: str = ""
    result: TokenizerResult | None = None

    @property
    def parameters(self) -> int | None:
        """Numbers in all of its networks and tables."""
        cost = None if self.result is None else self.result.cost
        return None if cost is None else sum(cost.parameters.values())

    @property
    def gflops(self) -> float | None:
        """What encoding and decoding one image takes."""
        cost = None if self.result is None else self.result.cost
        return None if cost is None else (cost.encode_flops + cost.decode_flops) / 1e9

    @property
    def usage(self) -> float | None:
        """The share of its ids in use, of a large codebook that of the ids within reach."""
        codebook = None if self.result is None else self.result.codebook
        figures = {} if codebook is None else codebook.figures
        return figures.get("usage", figures.get("usage@tokens"))


@final
@dataclass(frozen=True, kw_only=True)
class Board:
    """A leaderboard.

    Attributes:
        title: Its title.
        images: Where the images are from, how many there are, and a hash of their content.
        protocol: What all rows share, as keys of ``vqtrain evaluate`` are typed.
        rows: The best in the first metric first, then those without figures.
    """

    title: str
    images: Mapping[str, object]
    protocol: Mapping[str, str]
    rows: Sequence[Row]

    @property
    def measured(self) -> list[tuple[Row, TokenizerResult]]:
        """The rows with figures."""
        return [(row, row.result) for row in self.rows if row.result is not None]

    @property
    def metrics(self) -> list[str]:
        """The metrics of all rows."""
        return list(dict.fromkeys(name for _, found in self.measured for name in found.metrics))


def row_key(tokenizer: str, images: str, words: Sequence[str]) -> str:
    """Hash what decides the figures of a row.

    Args:
        tokenizer: The hash of the tokenizer.
        images: The hash of the images.
        words: Those of the command line that all rows share.
    """
    known = {"tokenizer": tokenizer, "images": images, "words": words, "vqtrain": __version__}
    return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:DIGITS]


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Sort rows: the best in the first metric first, and those without figures last."""

    def place(row: Row) -> float:
        metrics = {} if row.result is None else row.result.metrics
        name, value = next(iter(metrics.items()), ("", None))
        if value is None:
            return math.inf
        return value if declaration(name).lower_is_better else -value

    return sorted(rows, key=place)


def save(board: Board, folder: Path) -> None:
    """Write a leaderboard as JSON, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    known = {
        "format": FORMAT,
        "version": VERSION,
        "vqtrain": __version__,
        "title": board.title,
        "images": board.images,
        "protocol": board.protocol,
        "rows": [_plain(row) for row in board.rows],
    }
    text = json.dumps(known, indent=2, allow_nan=False)
    write_whole(folder / FILE, f"{text}\n".encode())


def _plain(row: Row) -> dict[str, object]:
    found = row.result
    figures: dict[str, object] = {}
    if found is not None:
        figures = {
            "image_size": found.image_size,
            "count": found.count,
            "skipped": len(found.skipped),
            "tokens_per_image": found.tokens_per_image,
            "bits_per_pixel": found.bits_per_pixel,
            "metrics": found.metrics,
            "protocols": found.protocols,
            "codebook": None if found.codebook is None else found.codebook.figures,
            "baselines": {word: asdict(each) for word, each in found.baselines.items()},
            "cost": None if found.cost is None else asdict(found.cost),
        }
    return {
        "name": row.name,
        "note": row.note,
        "state": row.state,
        "reason": row.reason,
        "command": row.command,
        "tokenizer": row.tokenizer,
        "key": row.key,
        "network": None if row.network is None else asdict(row.network),
        **figures,
    }


def show(board: Board, console: Console) -> None:
    """Print the figures of the rows, and why others have none."""
    names = board.metrics
    table = Table(box=None, pad_edge=False)
    table.add_column("tokenizer")
    for head in ("tokens", "bits/px", *names):
        table.add_column(head, justify="right", no_wrap=True)
    for row, found in board.measured:
        rate = found.bits_per_pixel
        tokens = f"{found.tokens_per_image:,}" if found.tokens_per_image else MISSING
        values = [rate, *(found.metrics.get(name) for name in names)]
        shown = [MISSING if value is None else f"{value:.{DECIMALS}f}" for value in values]
        table.add_row(row.name, tokens, *shown)
    if board.measured:
        console.print(table, markup=False)
    for row in board.rows:
        if row.state == FAILED:
            console.print(f"{'failed':<12}{row.name}: {row.reason}", markup=False)
