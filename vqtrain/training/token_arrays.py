"""Token ids and conditions of a set of samples, read into memory without Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int64, UInt

from vqtrain.data.tokens.read import read
from vqtrain.data.tokens.report import read_report
from vqtrain.errors import DataError, require
from vqtrain.generation.base import Condition

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
