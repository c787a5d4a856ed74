"""Token ids that are given from outside: integers of any width, of those that there are."""

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from vqtrain.errors import ConfigError


def as_token_ids(
    token_ids: Shaped[Tensor, "*shape"], size: int | None = None
) -> Int64[Tensor, "*shape"]:
    """Take integers of any width as ids: as an index, PyTorch takes uint8 for a mask.

    Args:
        token_ids: Of any shape.
        size: Number of ids; None for any number, also negative ones. It is not compared where a
            graph is traced.

    Raises:
        ConfigError: If they are not integers, or one is outside [0, size).

    Example:
        >>> as_token_ids(torch.tensor([0, 255], dtype=torch.uint8), 256)
        tensor([  0, 255])
    """
    dtype = token_ids.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise ConfigError(f"token ids must be integers, got {dtype}")
    ids = token_ids.long()
    if size is not None and ids.numel() and not (ids.is_meta or torch.compiler.is_compiling()):
        least, most = torch.stack(torch.aminmax(ids)).tolist()
        if not 0 <= least <= most < size:
            raise ConfigError(f"token ids must be from 0 to {size - 1}, got {least} to {most}")
    return ids
