"""Elementwise errors."""

import torch
from jaxtyping import Float
from torch import Tensor


def difference(
    reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
) -> Float[Tensor, "b c *size"]:
    """Subtract the samples from their reconstructions in at least float32."""
    dtype = torch.promote_types(
        torch.promote_types(reconstructions.dtype, samples.dtype), torch.float32
    )
    return reconstructions.to(dtype) - samples.to(dtype)
