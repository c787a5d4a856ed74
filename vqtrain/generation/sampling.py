"""Drawing ids from the scores that a model gives them."""

from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vqtrain.ops.precision import at_least_float32
from vqtrain.ranges import FINITE, above, at_least, at_most, check_fields


@final
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How ids are drawn: the temperature first, then the most likely k, then the share p.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely id.
        top_k: Draws from so many most likely ids; None for all.
        top_p: Draws from the fewest most likely ids that have this share of the probability.

    Raises:
        ConfigError: If a value is out of range.
    """

    temperature: Annotated[float, at_least(0), FINITE] = 1.0
    top_k: Annotated[int, at_least(1)] | None = None
    top_p: Annotated[float, above(0), at_most(1)] | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely id is always taken."""
        return self.temperature == 0 or self.top_k == 1


def draw(
    logits: Float[Tensor, "*shape size"], sampling: Sampling, generator: torch.Generator
) -> Int64[Tensor, "*shape"]:
    """Draw an id from each row of logits.

    Random numbers come from the generator's device, so that all devices draw the same.

    Example:
        >>> draw(torch.tensor([1.0, 3.0, 2.0]), Sampling(top_k=1), torch.Generator())
        tensor(1)
    """
    if sampling.is_greedy:
        return logits.argmax(dim=-1)
    probabilities = kept_probabilities(logits, sampling)
    noise = torch.empty(probabilities.shape, device=generator.device, dtype=probabilities.dtype)
    # The smallest of exponential variables with these rates is a draw with these probabilities.
    noise.exponential_(generator=generator)
    return (probabilities / noise.to(logits.device)).argmax(dim=-1)


def kept_probabilities(
    logits: Float[Tensor, "*shape size"], sampling: Sampling
) -> Float[Tensor, "*shape size"]:
    """Return the probabilities with which ids are drawn, up to a factor; temperature above 0.

    Example:
        >>> kept_probabilities(torch.tensor([0.5, 0.2, 0.3]).log(), Sampling(top_p=0.7))
        tensor([0.5000, 0.0000, 0.3000])
    """
    scores = at_least_float32(logits) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        values, ids = scores.topk(sampling.top_k, dim=-1)
        scores = torch.full_like(scores, -torch.inf).scatter(-1, ids, values)
    probabilities = scores.softmax(dim=-1)
    if sampling.top_p is not None:
        values, ids = probabilities.sort(dim=-1, descending=True)
        # An id is dropped if those before it have the share already.
        before = values.cumsum(dim=-1) - values
        kept = values.where(before < sampling.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, ids, kept)
    return probabilities
