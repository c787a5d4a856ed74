"""Between signs, bits and ids: bit i of an id says whether channel i is positive."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# An id of more bits does not fit into int64.
MAX_BITS = 63


def to_ids(z: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
    """Read the signs of at most 63 channels as a number; zero counts as negative.

    Example:
        >>> to_ids(torch.tensor([[0.5, -1.0, 2.0], [-1.0, 0.0, -2.0]])).tolist()
        [5, 0]
    """
    places = torch.arange(z.shape[1], device=z.device)
    # By its name: what << becomes in a traced graph, the ONNX exporter does not know.
    return torch.bitwise_left_shift((z > 0).long(), places).sum(1)


def to_signs(
    ids: Int64[Tensor, " n"], bits: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n bits"]:
    """Write numbers as -1 and 1, the lowest bit first.

    Example:
        >>> to_signs(torch.tensor([5]), 3).tolist()
        [[1.0, -1.0, 1.0]]
    """
    places = torch.arange(bits, device=ids.device)
    bits_of_ids = torch.bitwise_right_shift(ids[:, None], places) & 1
    return bits_of_ids.to(dtype) * 2 - 1
