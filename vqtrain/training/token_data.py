"""Token ids and conditions in memory, as batches of a run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int64, UInt
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.faults import Fault
from vqtrain.data.tokens.read import read
from vqtrain.data.tokens.report import read_report
from vqtrain.errors import DataError, require
from vqtrain.generation.base import Condition
from vqtrain.shapes import Mask
from vqtrain.training.trained import RunData, Timed

# A text is so many bytes; a shorter one is padded by a value that no byte has.
TEXT_LENGTH, PADDING = 64, 256
# Each class has a vector of its own in the model.
MAX_CLASSES = 1_000_000


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TokenArrays:
    """The ids of a set of samples, and what is known of each.

    Attributes:
        token_ids: In the type of the files.
        conditions: The class of each sample, or the bytes of its text; [n, 0] if nothing is known.
        digest: A hash of both.
    """

    token_ids: UInt[np.ndarray, " n *tokens"]
    conditions: Int64[np.ndarray, "n m"]
    digest: str

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.token_ids)


def read_tokens(folder: Path, *, condition: str | None) -> TokenArrays:
    """Read the output of ``vqtrain tokenize`` into memory.

    Args:
        folder: Its ``out``.
        condition: The field of each sample that is known, such as ``cls`` or ``txt``; None for
            none. Whole numbers are classes, anything else is text, of which 64 bytes count.

    Raises:
        DataError: If it is incomplete or damaged, holds ids of several shapes or no sample, or a
            sample lacks the field.
    """
    report = read_report(folder)
    shape = report["tokens"]["shape"]
    if shape is None:
        raise DataError(
            f"{folder} holds the ids of images of any size, which no model of one form can learn: "
            "tokenize with image_size"
        )
    count = report["samples"]
    token_ids = np.empty((count, *shape), report["tokens"]["dtype"])
    values: list[bytes] = []
    number = 0
    for number, sample in enumerate(read(folder), start=1):
        if number > count:
            break
        token_ids[number - 1] = sample.token_ids
        if condition is not None:
            if condition not in sample.fields:
                known = ", ".join(sorted(sample.fields)) or "none"
                raise DataError(
                    f"{sample.key!r} in {folder} has no field {condition!r}, which condition="
                    f"{condition} names; its fields: {known}"
                )
            values.append(sample.fields[condition])
    if number != count or count == 0:
        raise DataError(f"{folder} holds {number} samples, its index {count}")
    conditions = np.empty((count, 0), np.int64) if condition is None else encode(values)
    digest = sha256(f"{token_ids.dtype} {token_ids.shape} {conditions.shape}".encode())
    digest.update(token_ids.data)
    digest.update(conditions.data)
    return TokenArrays(token_ids=token_ids, conditions=conditions, digest=digest.hexdigest())


def encode(values: Sequence[bytes]) -> Int64[np.ndarray, "n m"]:
    """Turn the fields of samples into classes if all are whole numbers, else into bytes of text.

    Example:
        >>> encode([b"3", b"0"]).tolist(), encode([b"a", b"3"])[:, :2].tolist()
        ([[3], [0]], [[97, 256], [51, 256]])
    """
    if all(value.strip().isdigit() for value in values):
        return np.array([[min(int(value), MAX_CLASSES)] for value in values], np.int64)
    texts = np.full((len(values), TEXT_LENGTH), PADDING, np.int64)
    for row, value in zip(texts, values, strict=True):
        known = np.frombuffer(value[:TEXT_LENGTH], np.uint8)
        row[: len(known)] = known
    return texts


def condition_of(training: TokenArrays, validation: TokenArrays) -> Condition:
    """Say what is known of the samples of both sets.

    Raises:
        ConfigError: If they know different things, or there are too many classes.
    """
    length = training.conditions.shape[1]
    require(
        validation.conditions.shape[1] == length,
        "the condition must be a class or a text in training and validation alike",
    )
    if length == 0:
        return Condition()
    if length == TEXT_LENGTH:
        return Condition(size=PADDING + 1, length=length)
    largest = int(max(training.conditions.max(), validation.conditions.max()))
    require(
        largest < MAX_CLASSES,
        f"the classes of the condition must be below {MAX_CLASSES:,}: number them from 0",
    )
    return Condition(size=largest + 1, length=1)


@final
@dataclass(kw_only=True, eq=False)  # not frozen: Lightning's float64 refuses frozen dataclasses
class TokenBatch:
    """A batch of ids.

    Attributes:
        token_ids: Of each sample.
        conditions: What is known of each.
        numbers: The number of each sample in its set.
        mask: False for padding, which must not be counted.
        faults: None: all samples were read before.
    """

    token_ids: Int64[Tensor, " b *tokens"]
    conditions: Int64[Tensor, "b m"]
    numbers: Sequence[int]
    mask: Mask
    faults: Sequence[Fault] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """Copy to a device, with the arguments of ``Tensor.to``."""
        tensors = (self.token_ids, self.conditions, self.mask)
        ids, conditions, mask = (each.to(device, non_blocking=non_blocking) for each in tensors)
        return replace(self, token_ids=ids, conditions=conditions, mask=mask)


@final
class TokenData(RunData):
    """Batches of ids, in an order that depends on the seed and the position alone.

    Args:
        training: What is trained on.
        validation: What is validated on.
        batch_size: Samples of a batch of each process.
        seed: Seed of the run.
        start: Samples that the run has seen so far, over all ranks.
    """

    def __init__(
        self,
        *,
        training: TokenArrays,
        validation: TokenArrays,
        batch_size: int,
        seed: int,
        start: int,
    ) -> None:
        super().__init__(training_digest=training.digest, validation_digest=validation.digest)
        self.training, self.validation = training, validation
        self.batch_size, self.seed, self.start = batch_size, seed, start
        self.consumed = 0

    @property
    def epochs(self) -> float:
        """Epochs that the run has seen so far."""
        return self.samples_at(self.consumed) / len(self.training)

    @property
    def summary(self) -> dict[str, object]:
        """Nothing: a model over ids is read together with its probe."""
        return {}

    @property
    def remedy_for_waiting(self) -> None:
        """Nothing: all is in memory."""
        return

    def samples_at(self, batches: int) -> int:
        """Count the samples seen over all ranks after that many batches of each."""
        return self.start + batches * distributed.world_size() * self.batch_size

    def places(self) -> None:
        """Return None: the samples tell the position."""
        return

    def on_before_batch_transfer(self, batch: TokenBatch, dataloader_idx: int) -> TokenBatch:
        """Note that a batch is being trained on; Lightning has loaded one more by now."""
        del dataloader_idx
        self.consumed += 1
        return batch

    def train_dataloader(self) -> Timed:
        """Return batches without an end."""
        self.batches = Timed(self.training_batches())
        return self.batches

    def training_batches(self) -> Iterator[TokenBatch]:
        """Yield training batches of this rank from ``start`` on."""
        n, world_size = len(self.training), distributed.world_size()
        first = self.start + distributed.rank() * self.batch_size
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            numbers = []
            for position in range(first, first + self.batch_size):
                if position // n != epoch:
                    epoch = position // n
                    order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(n)
                numbers.append(int(order[position % n]))
            yield batch_of(self.training, numbers)
            first += world_size * self.batch_size

    def validation_batches(self) -> Iterable[TokenBatch]:
        """Yield every validation sample once over all ranks, in equally many full batches."""
        n, of_all = len(self.validation), self.batch_size * distributed.world_size()
        for begin in range(distributed.rank() * self.batch_size, -(-n // of_all) * of_all, of_all):
            yield batch_of(self.validation, range(begin, begin + self.batch_size))


def batch_of(arrays: TokenArrays, numbers: Sequence[int]) -> TokenBatch:
    """Make a batch of some samples; numbers after the last one are padding."""
    places = np.array(numbers)
    found = np.minimum(places, len(arrays) - 1)
    return TokenBatch(
        token_ids=torch.from_numpy(arrays.token_ids[found].astype(np.int64)),
        conditions=torch.from_numpy(arrays.conditions[found]),
        numbers=list(numbers),
        mask=torch.from_numpy(places < len(arrays)),
    )
