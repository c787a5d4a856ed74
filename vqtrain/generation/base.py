"""The contract that every model over token ids keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.generation.form import TokenForm
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.noise import SampleNoise
from vqtrain.ranges import at_least, check_fields


@final
@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is known of a sample before its ids: a class is one value, a text one for each byte.

    Attributes:
        size: Number of values.
        length: Values for each sample, m; 0 where nothing is known.

    Raises:
        ConfigError: If a number is negative, or there are values of none.
    """

    size: Annotated[int, at_least(0)] = 0
    length: Annotated[int, at_least(0)] = 0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "condition")
        require(
            (self.size > 0) == (self.length > 0),
            f"condition.size and condition.length are both 0 or both above, got {self.size} and "
            f"{self.length}",
        )


class TokenModel(nn.Module, ABC):
    """A model of the ids of samples, given their conditions.

    Weights are float32 or float64; the cross entropy is at least float32, even under autocast.

    Attributes:
        kind: Its word: causal, masked or next_scale.
        is_bound: Whether ``nats`` has a mean above the code length; otherwise it is exact.
        form: Of the ids.
        condition: Of the samples.
    """

    kind: ClassVar[str]
    is_bound: ClassVar[bool]
    form: TokenForm
    condition: Condition

    @property
    @abstractmethod
    def flops(self) -> int:
        """Operations of one sample in training; a multiplication with an addition counts as 2.

        Of the matrix products alone; a backward pass counts as two forward passes.
        """

    def loss(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return what training minimizes for each sample: a mean over ids, in nats.

        It is the code length by the number of ids, unless a model says otherwise.

        Args:
            token_ids: In the form of ``form``, each in [0, size).
            conditions: Each in [0, condition.size); [b, 0] where there are none.
            noise: Of the samples, where the loss is random.
        """
        return self.nats(token_ids, conditions, noise) / self.form.num_tokens

    @abstractmethod
    def nats(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return the code length of each sample: of all its ids together, in nats."""

    @abstractmethod
    def sample(
        self, conditions: Int64[Tensor, "b m"], sampling: Sampling, generator: torch.Generator
    ) -> Int64[Tensor, " b *tokens"]:
        """Draw the ids of a sample for each condition, on the device of the conditions."""
