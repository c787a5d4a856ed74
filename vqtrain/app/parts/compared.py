"""Samples on which an export is compared with PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.app.parts.sources import Named
from vqtrain.data.media import SOUND, VIDEO
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import BadSampleError, ConfigError, DataError
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer

# Of the check; a third of them lose a share of their columns, a third of their rows.
SAMPLES = 8
DEMO = "demo"
KEPT_SHARE = 0.75
# Tokens of an axis of which fewer, but at least two, can be kept.
LEAST_CUT = 3


def samples_of(
    tokenizer: Tokenizer,
    source: Named,
    *,
    image_size: ImageSize | None = None,
    frames: int | None = None,
    length: int | None = None,
    count: int = SAMPLES,
) -> list[Float[Tensor, "_ c *_"]]:
    """Read samples from all over: of the size, and where the tokenizer takes them, of others.

    Raises:
        ConfigError: If the size does not fit the tokenizer.
        DataError: If there are no samples, or one cannot be read.
    """
    settings = SampleSettings(
        image_size=image_size,
        frames=frames,
        length=length,
        crop="resize",
        batch_size=1,
        num_workers=0,
        device="cpu",
        precision="32-true",
    )
    transform, only = settings.transform(tokenizer), traced_size(tokenizer)
    media, size = transform.media, transform.sample_size
    if only and size != only:
        key = "length" if media is SOUND else "image_size"
        what = "the only size of this tokenizer's graphs"
        raise ConfigError(f"{key} must be {by(only)}, {what}, got {by(size)}")
    index = open_samples(source, media, role="validation")
    chosen = np.unique(np.linspace(0, len(index) - 1, count).round().astype(int)).tolist()
    pixels = []
    for sample_id in chosen:
        try:
            pixels.append(transform.decode(index.read(sample_id), None))
        except BadSampleError as error:
            raise DataError(f"cannot read {index.key(sample_id)}: {error}") from error
    whole = tokenizer.to_images(torch.stack(pixels))
    if only:
        return [whole]
    # A clip may have few frames.
    first = int(media is VIDEO and tokenizer.encoder.grid(size)[0] < LEAST_CUT)
    others = [shorter(tokenizer, size, axis) for axis in (len(size) - 1, first)]
    batches = [whole[::3], *(cut(whole[n::3], other) for n, other in enumerate(others, start=1))]
    return [batch for batch in batches if len(batch)]


def shorter(tokenizer: Tokenizer, size: Sequence[int], axis: int) -> tuple[int, ...]:
    """Return a size with fewer tokens along an axis.

    Raises:
        ConfigError: If an axis of images or sounds has less than two tokens.
    """
    grid, unit = list(tokenizer.encoder.grid(size)), tokenizer.codebook.grid_unit
    # The frames of a clip may be a single token.
    sides = list(zip(size, grid, tokenizer.unit, strict=True))[-2:]
    if min(tokens for _, tokens, _ in sides) < 2 * unit:
        key = "length" if len(size) == 1 else "image_size"
        least = 2 * max(side for _, _, side in sides)
        least_size = min(side for side, _, _ in sides)
        raise ConfigError(f"{key} must be at least {least}, two tokens, got {least_size}")
    grid[axis] = max(2 * unit, int(KEPT_SHARE * grid[axis]) // unit * unit)
    return tokenizer.encoder.size(grid)


def cut(samples: Float[Tensor, "b c *size"], size: Sequence[int]) -> Float[Tensor, "b c *kept"]:
    """Keep the beginning of each axis."""
    return samples[(slice(None), slice(None), *(slice(n) for n in size))]
