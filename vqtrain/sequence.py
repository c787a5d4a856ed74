"""Token ids as sequences for language models, and back.

Ids are as ``Tokenizer.encode`` gives them, or integers of any other width; what comes back is
int64. No tokenizer is needed here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, final

import torch
from einops import rearrange
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import ConfigError, require
from vqtrain.ranges import at_least, check_fields, one_of
from vqtrain.token_ids import as_token_ids

ORDERS = ("interleaved", "delayed")
# The meaning of the ids after those of the codebooks, in order.
SPECIAL_TOKENS = ("begin of image", "end of image", "end of row", "padding")


@final
@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """An image found in a sequence.

    Attributes:
        start: Position of its first id.
        stop: Position after its last id.
        token_ids: Its ids, as a batch of one image for ``Tokenizer.decode``.
    """

    start: int
    stop: int
    token_ids: Int64[Tensor, " 1 *tokens"]


@final
@dataclass(frozen=True, kw_only=True)
class SequenceLayout:
    """The layout of images and text in one sequence of ids.

    The vocabulary consists, in this order, of the text ids, one range of ids per codebook, and the
    four special tokens begin, end, row and padding. The special tokens have ids even if they are
    not used. ``vocab_size`` counts all ids.

    An image is written row by row, from top to bottom, a clip so frame by frame, and a sound as one
    row. With several codebooks, ``interleaved`` writes the k ids of each position next to each
    other, and one row token ends a row. ``delayed`` interleaves the k streams of ``delay``: step s
    holds the id of codebook i for position s - i, so a model can predict the k ids of a step at
    once; each stream has its own row tokens.

    Args:
        size: Ids per codebook, at least 1: ``tokenizer.vocab_size``.
        num_codebooks: Ids per position, at least 1.
        text_size: Number of text ids, which come first; at least 0.
        begin: Whether a begin token starts each image.
        end: Whether an end token ends each image.
        rows: Whether a row token ends each row, so that height and width can be read off.
        order: interleaved or delayed.

    Raises:
        ConfigError: If a size is too small, or the order unknown.

    References:
        ``delayed``: Copet et al. 2023, arXiv:2306.05284, section 2.2. Deviation: there is no first
        step of padding alone; the begin token takes its role.

    Example:
        >>> layout = SequenceLayout(size=10, text_size=256, rows=True)
        >>> layout.to_sequence(torch.tensor([[[1, 2], [3, 4]]]))
        tensor([[266, 257, 258, 268, 259, 260, 268, 267]])
        >>> layout.to_token_ids(_)
        tensor([[[1, 2],
                 [3, 4]]])
    """

    size: Annotated[int, at_least(1)]
    num_codebooks: Annotated[int, at_least(1)] = 1
    text_size: Annotated[int, at_least(0)] = 0
    begin: bool = True
    end: bool = True
    rows: bool = False
    order: Annotated[str, one_of(*ORDERS)] = "interleaved"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")

    @property
    def begin_id(self) -> int:
        """The id that begins an image."""
        return self.text_size + self.num_codebooks * self.size

    @property
    def end_id(self) -> int:
        """The id that ends an image."""
        return self.begin_id + 1

    @property
    def row_id(self) -> int:
        """The id that ends a row."""
        return self.begin_id + 2

    @property
    def padding_id(self) -> int:
        """The id where a delayed codebook has none; also allowed between images."""
        return self.begin_id + 3

    @property
    def vocab_size(self) -> int:
        """Number of all ids: text, codebooks and special tokens."""
        return self.begin_id + len(SPECIAL_TOKENS)

    def to_sequence(self, token_ids: Shaped[Tensor, " b *tokens"]) -> Int64[Tensor, "b length"]:
        """Write images, or clips and sounds, as sequences.

        Args:
            token_ids: [b, h, w], [b, t, h, w] or [b, n]; with several codebooks [b, k, ...].

        Raises:
            ConfigError: If the shape does not fit, or ids are not integers or out of range.
        """
        height, width = self._sides(token_ids.shape[1:])
        ids = as_token_ids(token_ids, self.size)
        grid = ids.reshape(-1, self.num_codebooks, height, width)
        return self._arrange(grid + self._offsets(token_ids.device))

    def to_token_ids(
        self, sequence: Shaped[Tensor, "*shape"], token_shape: Sequence[int] | None = None
    ) -> Int64[Tensor, " b *tokens"]:
        """Read sequences, each of which is exactly one image.

        Args:
            sequence: [b, length], from ``to_sequence`` or from a model.
            token_shape: The shape of the ids of one image, as ``Tokenizer.token_shape``; optional
                with ``rows=True``, but for clips, whose frames no token divides.

        Raises:
            ConfigError: If a sequence is not a valid image; the message names the position.
        """
        shape = list(sequence.shape)
        require(sequence.ndim == 2, f"sequences are [b, length], got {shape}: use sequence[None]")
        return self._read(as_token_ids(sequence), token_shape, start=0)

    def allowed(self, token_shape: Sequence[int]) -> Int64[Tensor, "length 2"]:
        """Return the smallest and the largest id that each position of an image may have.

        A sampler that keeps to these ranges only generates valid images.

        Raises:
            ConfigError: If the shape does not fit.
        """
        smallest = torch.zeros(1, self.num_codebooks, *self._sides(token_shape), dtype=torch.int64)
        smallest = smallest + self._offsets(smallest.device)
        both = torch.cat([smallest, smallest + self.size - 1])
        return rearrange(self._arrange(both), "two length -> length two")

    def find(
        self, sequence: Shaped[Tensor, "*shape"], token_shape: Sequence[int] | None = None
    ) -> list[FoundImage]:
        """Find the images in a sequence of text and images, with or without padding between them.

        Args:
            sequence: Ids of the whole vocabulary, [length].
            token_shape: The shape of the ids of each image; optional with ``rows=True`` and
                ``end=True``.

        Raises:
            ConfigError: If an id is outside the vocabulary, or an image is incomplete; the message
                names the position.
        """
        require(sequence.ndim == 1, f"one sequence [length] at once, got {list(sequence.shape)}")
        sequence = as_token_ids(sequence)
        unknown = ((sequence < 0) | (sequence >= self.vocab_size)).nonzero().flatten()
        if len(unknown):
            position = int(unknown[0])
            raise ConfigError(f"position {position} is {self._say(int(sequence[position]))}")
        outside = (sequence < self.text_size) | (sequence == self.padding_id)
        found: list[FoundImage] = []
        for start in (~outside).nonzero().flatten().tolist():
            if found and start < found[-1].stop:
                continue
            stop = self._stop(sequence, start, token_shape)
            token_ids = self._read(sequence[None, start:stop], token_shape, start=start)
            found.append(FoundImage(start=start, stop=stop, token_ids=token_ids))
        return found

    def check(
        self, sequence: Shaped[Tensor, "*shape"], token_shape: Sequence[int] | None = None
    ) -> None:
        """Refuse an invalid sequence of text and images; see ``find``."""
        self.find(sequence, token_shape)

    def _sides(self, token_shape: Sequence[int]) -> tuple[int, int]:
        """Return height and width of an image's ids; a list of ids is one row.

        The rows of a clip are those of all its frames.
        """
        k, shape = self.num_codebooks, tuple(token_shape)
        tokens = shape if k == 1 else shape[1:]
        fits = len(tokens) in (1, 2, 3) and min(tokens) >= 1 and (k == 1 or shape[0] == k)
        if not fits:
            first = "" if k == 1 else f"{k}, "
            raise ConfigError(
                f"the ids of a sample of {k} {'codebook' if k == 1 else 'codebooks'} must be "
                f"[{first}h, w], [{first}t, h, w] or [{first}n], got {list(shape)}"
            )
        if len(tokens) == 1 and self.rows:
            raise ConfigError(f"ids of shape {list(shape)} have no rows: use rows=False")
        return math.prod(tokens[:-1]), tokens[-1]

    def _offsets(self, device: torch.device) -> Int64[Tensor, "k 1 1"]:
        starts = torch.arange(self.num_codebooks, device=device) * self.size + self.text_size
        return rearrange(starts, "k -> k 1 1")

    def _arrange(self, grid: Int64[Tensor, "b k h w"]) -> Int64[Tensor, "b length"]:
        if self.order == "delayed":
            grid = F.pad(grid, (0, int(self.rows)), value=self.row_id)
            streams = delay(rearrange(grid, "b k h w -> b k (h w)"), padding=self.padding_id)
            sequence = rearrange(streams, "b k n -> b (n k)")
        else:
            lines = rearrange(grid, "b k h w -> b h (w k)")
            lines = F.pad(lines, (0, int(self.rows)), value=self.row_id)
            sequence = rearrange(lines, "b h w -> b (h w)")
        sequence = F.pad(sequence, (int(self.begin), 0), value=self.begin_id)
        return F.pad(sequence, (0, int(self.end)), value=self.end_id)

    def _read(
        self, sequence: Int64[Tensor, "b length"], token_shape: Sequence[int] | None, start: int
    ) -> Int64[Tensor, " b *tokens"]:
        if token_shape is None:
            token_shape = self._measure(sequence, start)
        height, width = self._sides(token_shape)
        self._compare(sequence, self.allowed(token_shape).to(sequence.device), start)
        body = sequence[:, self.begin : sequence.shape[1] - self.end]
        k, columns = self.num_codebooks, width + self.rows
        if self.order == "delayed":
            streams = undelay(rearrange(body, "b (n k) -> b k n", k=k))
            grid = rearrange(streams, "b k (h w) -> b k h w", w=columns)[..., :width]
        else:
            lines = rearrange(body, "b (h w) -> b h w", h=height)[..., : width * k]
            grid = rearrange(lines, "b h (w k) -> b k h w", k=k)
        return (grid - self._offsets(grid.device)).reshape(-1, *token_shape)

    def _measure(self, sequence: Int64[Tensor, "b length"], start: int) -> tuple[int, ...]:
        """Read height and width off the ends of the rows of the first image."""
        require(self.rows, "without row tokens the shape is unknown: give token_shape")
        k = self.num_codebooks
        step = k if self.order == "delayed" else 1
        ends = (sequence[:1, self.begin :: step] == self.row_id).nonzero()[:, 1]
        if not len(ends):
            raise ConfigError(
                f"the image from position {start} on has no {SPECIAL_TOKENS[2]} ({self.row_id}), "
                "so its width is unknown"
            )
        # If no width fits, the comparison reports the error for the nearest one.
        width = max(1, int(ends[0]) * step // k)
        return (len(ends), width) if k == 1 else (k, len(ends), width)

    def _compare(
        self, sequence: Int64[Tensor, "b length"], allowed: Int64[Tensor, "n 2"], start: int
    ) -> None:
        """Refuse sequences with an id that is not allowed, naming its position."""
        common = min(sequence.shape[1], len(allowed))
        smallest, largest = allowed[:common].T
        ids = sequence[:, :common]
        wrong = ((ids < smallest) | (ids > largest)).nonzero()
        if len(wrong):
            row, position = wrong[0].tolist()
            which = f"sequence {row}, " if len(sequence) > 1 else ""
            raise ConfigError(
                f"{which}position {start + position} must be {self._say(*allowed[position])}, got "
                f"{self._say(int(ids[row, position]))}"
            )
        if common < len(allowed):
            raise ConfigError(
                f"the image ends before position {start + common}, which must be "
                f"{self._say(*allowed[common])}"
            )
        if common < sequence.shape[1]:
            raise ConfigError(
                f"the image continues at position {start + common}, where it must have ended"
            )

    def _stop(
        self, sequence: Int64[Tensor, " length"], start: int, token_shape: Sequence[int] | None
    ) -> int:
        if self.begin and sequence[start] != self.begin_id:
            raise ConfigError(
                f"position {start} must be {self._say(self.begin_id)}, got "
                f"{self._say(int(sequence[start]))}"
            )
        if token_shape is not None:
            return start + len(self.allowed(token_shape))
        require(
            self.rows and self.end,
            "without token_shape, images need end and row tokens: use end=True rows=True, or give "
            "token_shape",
        )
        ends = (sequence[start:] == self.end_id).nonzero().flatten()
        if not len(ends):
            raise ConfigError(
                f"the image from position {start} on has no {SPECIAL_TOKENS[1]} ({self.end_id})"
            )
        return start + int(ends[0]) + 1

    def _say(self, smallest: int | Tensor, largest: int | Tensor | None = None) -> str:
        """Say what an id, or a range of ids, means."""
        first = int(smallest)
        last = first if largest is None else int(largest)
        ids = f"{first}" if first == last else f"{first} to {last}"
        if not 0 <= first < self.vocab_size:
            return f"{ids}, which is outside the vocabulary of {self.vocab_size} ids"
        if first < self.text_size:
            return f"{ids} (text)"
        if first >= self.begin_id:
            return f"{ids} ({SPECIAL_TOKENS[first - self.begin_id]})"
        return f"{ids} (codebook {(first - self.text_size) // self.size})"


def delay(token_ids: Shaped[Tensor, "*shape"], *, padding: int) -> Int64[Tensor, "b k steps"]:
    """Shift codebook i by i positions, for models that predict the ids of a step at once.

    Args:
        token_ids: Ids of several codebooks, [b, k, n].
        padding: The id that fills the k - 1 empty positions of each stream.

    Raises:
        ConfigError: If they are not integers [b, k, n].

    References:
        Copet et al. 2023, arXiv:2306.05284, section 2.2.

    Example:
        >>> delay(torch.tensor([[[1, 2, 3], [4, 5, 6]]]), padding=0)
        tensor([[[1, 2, 3, 0],
                 [0, 4, 5, 6]]])
    """
    ids = _streams_of(token_ids)
    k = ids.shape[1]
    streams = [F.pad(ids[:, i], (i, k - 1 - i), value=padding) for i in range(k)]
    return torch.stack(streams, dim=1)


def undelay(streams: Shaped[Tensor, "*shape"]) -> Int64[Tensor, "b k n"]:
    """Undo ``delay``: shift codebook i back by i positions, and drop the padding.

    Raises:
        ConfigError: If they are not integers [b, k, steps], or steps are fewer than codebooks.

    Example:
        >>> undelay(torch.tensor([[[1, 2, 3, 0], [0, 4, 5, 6]]]))
        tensor([[[1, 2, 3],
                 [4, 5, 6]]])
    """
    streams = _streams_of(streams)
    k, steps = streams.shape[1:]
    require(steps >= k, f"{k} delayed codebooks take at least {k} steps, got {steps}")
    positions = steps - k + 1
    return torch.stack([streams[:, i, i : i + positions] for i in range(k)], dim=1)


def _streams_of(token_ids: Shaped[Tensor, "*shape"]) -> Int64[Tensor, "b k n"]:
    shape = list(token_ids.shape)
    require(len(shape) == 3, f"ids of several codebooks are [b, k, n], got {shape}")
    return as_token_ids(token_ids)
