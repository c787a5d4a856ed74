"""What a tokenizer refuses."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.parts.lookup import no_ids
from vqtrain.decoders.base import Decoder
from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError, VqtrainError, require
from vqtrain.ops.pixels import ValueRange
from vqtrain.shapes import by

LEAST_TILE = 8  # tokens
MAX_LISTED = 2**22  # vectors of a codebook at once
# Of a sample in [-1, 1]: bicubic resampling reaches 1.9 at most, a decoder's overshoot much less.
# White is 2.2 where images are normalized by the statistics of ImageNet.
LARGEST = 2.0
SOURCES = "make samples by preprocess(image) or to_images(pixels)"


def check_range(ends: ValueRange | None) -> None:
    """Refuse values of black and white that are no range; None is uint8."""
    if ends is not None and not -math.inf < ends[0] < ends[1] < math.inf:
        raise ConfigError(f"a range of pixels is two numbers, black and white, got {list(ends)}")


def check_samples(
    samples: Shaped[Tensor, "*shape"], channels: int, downsampling: Sequence[int]
) -> None:
    """Refuse tensors of the shape or the type of no samples."""
    if samples.ndim < 3 or samples.shape[1] != channels:
        raise ConfigError(
            f"this tokenizer takes samples [b, {channels}, {', '.join('*' * len(downsampling))}], "
            f"got {list(samples.shape)}"
        )
    require(
        samples.is_floating_point(),
        f"samples must be floats in [-1, 1], got {samples.dtype}: {SOURCES}",
    )


def check_values(samples: Float[Tensor, "b c *size"]) -> None:
    """Refuse values that no sample in [-1, 1] has; waits for the device, but not in a graph."""
    if samples.is_meta or torch.compiler.is_compiling() or not samples.numel():
        return
    least, most = torch.stack(torch.aminmax(samples.detach())).tolist()
    if not -LARGEST <= least <= most <= LARGEST:  # also where they are NaN
        raise ConfigError(
            f"samples must be in [-1, 1], got values from {least:g} to {most:g}: {SOURCES}"
        )


def check_finite(latents: Float[Tensor, "b d *grid"]) -> None:
    """Refuse latents that would give ids that mean nothing."""
    bad = int((~latents.isfinite()).sum())
    if bad:
        raise VqtrainError(
            f"the codebook was given latents that are not finite, {bad} of {latents.numel()} "
            "values: images, the weights of encoder and project_in, or half precision"
        )


def check_token_shape(shape: Sequence[int], codebook: Codebook, decoder: Decoder) -> None:
    """Refuse ids in another shape than ``Tokenizer.encode`` gives them."""
    k, grids = codebook.num_codebooks, codebook.token_grids
    first, tokens = (1, tuple(shape[1:])) if k == 1 else (2, tuple(shape[2:]))
    expected, reason = "*tokens", ""
    fits = len(shape) > first and (k == 1 or codebook.takes(shape[1]))
    if grids:
        found = codebook.tokens(grids[-1])
        expected, fits = ", ".join(map(str, found)), fits and tokens == found
    elif fits:
        try:
            decoder.size(codebook.grid(tokens))
        except ConfigError as error:
            fits, reason = False, f": {error}"
    if not fits:
        book = "" if k == 1 else f"{k}, "
        raise ConfigError(f"token ids must be [b, {book}{expected}], got {list(shape)}{reason}")


def check_ids(codebook: Codebook, specification: Mapping[str, object], instead: str | None) -> None:
    """Refuse a codebook that has no ids."""
    if codebook.num_codebooks == 0:
        raise no_ids(specification["kind"], instead)


def check_listed(size: int) -> None:
    """Refuse a codebook of more vectors than fit into memory."""
    if size > MAX_LISTED:
        raise ConfigError(
            f"{size} vectors are too many to list, at most {MAX_LISTED} are: use decode"
        )


def check_tile(tile: int | None, encoder: Encoder) -> None:
    """Refuse tiles that are no grid of tokens, or are little but seams; None is no tiles.

    Those of a causal encoder are whole along the first axis.
    """
    if tile is None:
        return
    axes = len(encoder.downsampling)
    factors = encoder.downsampling[encoder.causal :]
    require(len(factors) > 0, "tile is for samples of several axes: use piece")
    unit = math.lcm(*factors)
    least = LEAST_TILE * unit
    if tile < least or tile % unit:
        raise ConfigError(f"tile must be a multiple of {unit} px and at least {least}, got {tile}")
    first = encoder.size([1] * axes)[:1] if encoder.causal else ()
    try:
        grid = encoder.grid((*first, *[tile] * len(factors)))
    except ConfigError as error:
        raise ConfigError(f"tile={tile} does not fit this tokenizer: {error}") from error
    require(
        len(grid) == axes,
        f"tile={tile} needs tokens that each have a place in the image, but this tokenizer makes "
        f"sequences of {by(grid)}",
    )


def check_weights(
    weights: Mapping[str, Shaped[Tensor, "..."]], own: Mapping[str, Shaped[Tensor, "..."]]
) -> None:
    """Refuse weights of which one is missing, unknown or misshaped."""
    wrong = differences(weights, own)
    if wrong:
        rest = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigError(f"the weights do not fit: {'; '.join(wrong[:3])}{rest}")


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
