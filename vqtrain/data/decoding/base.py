"""The contract of transforms: from encoded bytes to a sample of one size."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.data.media import Media
from vqtrain.ops.pixels import ValueRange


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """How encoded samples become tensors.

    Attributes:
        media: What the samples are of.
        channels: Of a sample.
        range: The smallest and the largest value of float32 samples; None for uint8 in 0..255.
    """

    media: ClassVar[Media]
    channels: int
    range: ValueRange | None

    @property
    @abstractmethod
    def sample_size(self) -> tuple[int, ...]:
        """The sizes of a sample's axes besides its channels."""

    @property
    @abstractmethod
    def summary(self) -> Mapping[str, object]:
        """What a tokenizer keeps of it in ``training``, by which commands read samples alike."""

    @abstractmethod
    def sized(self, size: tuple[int, ...]) -> "Transform":
        """Return the same for samples of another size."""

    @abstractmethod
    def decode(
        self, encoded: bytes, generator: np.random.Generator | None
    ) -> Shaped[Tensor, " c *size"]:
        """Decode a part of one sample, of ``sample_size``.

        Args:
            encoded: A file's content.
            generator: Random numbers of this sample, or None for the part of validation.

        Returns:
            uint8, or with a range float32 values in it.

        Raises:
            BadSampleError: If the bytes are not a usable sample.
        """

    @abstractmethod
    def decode_whole(self, encoded: bytes) -> Shaped[Tensor, " c *size"]:
        """Decode all of one sample, of any size; errors are those of ``decode``."""
