"""How much of a codebook is used."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def usage(counts: Int64[Tensor, "k size"]) -> Float64[Tensor, ""]:
    """Return the fraction of ids that were seen, in [0, 1], as the mean over codebooks.

    Args:
        counts: How often each id of each codebook was seen.

    Example:
        >>> usage(torch.tensor([[5, 0, 1, 0]])).item()
        0.5
    """
    return (counts > 0).double().mean()


def perplexity(counts: Int64[Tensor, "k size"]) -> Float64[Tensor, ""]:
    """Return exp of the entropy of the ids in nats, in [1, size], as the mean over codebooks.

    It is the number of ids that would carry as much information if all were equally frequent. A
    codebook of which no id was seen counts as 0.

    Args:
        counts: How often each id of each codebook was seen.

    Example:
        >>> round(perplexity(torch.tensor([[3, 3, 3, 0]])).item(), 6)
        3.0
    """
    totals = counts.sum(dim=1, keepdim=True)
    probabilities = counts.double() / totals.clamp(min=1)
    entropies = torch.special.entr(probabilities).sum(dim=1)
    return torch.where(totals.squeeze(1) > 0, entropies.exp(), 0.0).mean()
