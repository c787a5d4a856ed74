"""The contract of formats."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from vqtrain.formats.parts.agreement import Agreement
from vqtrain.tokenizer.model import Tokenizer


class Format:
    """Tokenizers in a form of others: an ``Exporter``, a ``Converter``, or both.

    The arguments of its constructor are keys of ``vqtrain export`` and ``vqtrain convert``.
    """


class Exporter(Format, ABC):
    """A format that tokenizers are exported to."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer that cannot be written so, before any work; by default none.

        Raises:
            ConfigError: If it cannot be written.
        """
        del tokenizer

    @abstractmethod
    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write a tokenizer, load what was written again, and compare it.

        Args:
            tokenizer: In eval mode, on the CPU.
            out: A folder that exists.
            images: Batches in [-1, 1] to compare on.

        Raises:
            ConfigError: If the tokenizer cannot be written so.
            VqtrainError: If what was written does not agree with the tokenizer.
        """

    @abstractmethod
    def example(self, out: Path) -> str:
        """Return lines of Python that load what ``export`` wrote into a folder."""


class Converter(Format, ABC):
    """A format that tokenizers are converted from."""

    @abstractmethod
    def convert(self, path: Path) -> Tokenizer:
        """Make a tokenizer, in eval mode, of a checkpoint; nothing in it is run.

        Args:
            path: A file or a directory.

        Raises:
            ConfigError: If it is of a network that ours cannot be.
            CheckpointError: If it cannot be read, or is another network.
        """
