"""What a tokenizer refuses."""

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vqtrain.errors import ConfigError, VqtrainError

LEAST_TILE = 8  # tokens


def check_finite(latents: Float[Tensor, "b d *grid"]) -> None:
    """Refuse latents that would give ids that mean nothing."""
    bad = int((~latents.isfinite()).sum())
    if bad:
        raise VqtrainError(
            f"the codebook was given latents that are not finite, {bad} of {latents.numel()} "
            "values: images, the weights of encoder and project_in, or half precision"
        )


def check_range(token_ids: Int64[Tensor, "..."], size: int) -> None:
    """Refuse ids that the codebook does not have."""
    if token_ids.numel() and not 0 <= int(token_ids.min()) <= int(token_ids.max()) < size:
        raise ConfigError(
            f"token ids must be from 0 to {size - 1}, got {int(token_ids.min())} to "
            f"{int(token_ids.max())}"
        )


def check_tile(tile: int, downsampling: Sequence[int]) -> None:
    """Refuse pieces of a sample that do not divide into tokens, or are little but seams."""
    unit = math.lcm(*downsampling)
    least = LEAST_TILE * unit
    if tile < least or tile % unit:
        raise ConfigError(f"tile must be a multiple of {unit} px and at least {least}, got {tile}")


def differences(
    weights: Mapping[str, Shaped[Tensor, "..."]], own: Mapping[str, Shaped[Tensor, "..."]]
) -> list[str]:
    """Say of every weight that is missing, unknown or misshaped that it is.

    Args:
        weights: What is to be loaded.
        own: Names and shapes that are wanted.
    """
    missing = [f"{name} is missing" for name in own if name not in weights]
    unknown = [f"{name} is unknown" for name in weights if name not in own]
    misshaped = [
        f"{name} is {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    return missing + unknown + misshaped
